"""The style sheet of reports: paper and ink, one vermilion accent; light and dark by the reader's preference. No external resource."""

from __future__ import annotations

__all__ = ["CSS"]

CSS = """
:root{color-scheme:light dark;--paper:#fbfaf7;--card:#fff;--ink:#23211d;--soft:#6b675f;--line:#e4e0d7;--accent:#b23a2e;--accent-soft:#f4e3df;--blue:#35618f;--good:#3f7d57;--muted:#a8a297}
@media(prefers-color-scheme:dark){:root{--paper:#171614;--card:#1f1e1b;--ink:#ece8df;--soft:#a39d91;--line:#38352f;--accent:#e2705f;--accent-soft:#3a2320;--blue:#85b1dd;--good:#7dbb93;--muted:#6f6a60}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.65 system-ui,-apple-system,"Segoe UI","PingFang SC","Noto Sans CJK SC","Noto Sans SC","Microsoft YaHei",sans-serif}
main{max-width:960px;margin:0 auto;padding:44px 24px 72px}
header{border-bottom:1px solid var(--line);padding-bottom:20px;margin-bottom:26px}
.brand{color:var(--accent);font-size:13px;letter-spacing:.12em}
h1{font-size:30px;line-height:1.25;font-weight:650;margin:6px 0 8px;overflow-wrap:anywhere}
h2{font-size:19px;font-weight:650;margin:44px 0 6px}
p{margin:6px 0}
.sub,.lead{color:var(--soft)}
.lead{margin-bottom:14px;max-width:72ch}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:14px;margin:0 0 22px}
.tile{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px 18px}
.tile .k{color:var(--soft);font-size:13px}
.tile .v{font-size:26px;font-weight:650;line-height:1.3;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.tile .d{color:var(--soft);font-size:13px;font-variant-numeric:tabular-nums}
.tile.first .v{font-size:21px;line-height:1.69}
.tile.first{border-color:var(--accent);background:var(--accent-soft)}
.verdict{background:var(--card);border:1px solid var(--line);border-left:4px solid var(--accent);border-radius:8px;padding:12px 22px;margin:0}
.verdict li{margin:6px 0;list-style:none;overflow-wrap:anywhere}
.verdict li:first-child{font-weight:600}
.scroll{overflow-x:auto;border:1px solid var(--line);border-radius:10px;background:var(--card)}
details{margin:10px 0}summary{cursor:pointer;color:var(--soft);font-size:14px}
td.prose{white-space:normal;overflow-wrap:anywhere;min-width:150px;font-size:13px;line-height:1.6}
table{border-collapse:collapse;width:100%;font-size:14px}
th,td{padding:8px 14px;text-align:left;border-bottom:1px solid var(--line);white-space:nowrap}
tr:last-child td{border-bottom:0}
th{color:var(--soft);font-weight:500;font-size:13px}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
td.wrap{white-space:normal;overflow-wrap:anywhere;min-width:320px;font-size:12.5px;line-height:1.5;color:var(--soft)}
.said{color:var(--accent)}
.card+.scroll{margin-top:12px}
.row .scroll{margin:6px 0;flex:1 1 280px;max-width:420px}
td .pm{color:var(--soft);font-size:12.5px}
tr.chosen td{background:var(--accent-soft);font-weight:600}
tr.excluded td,tr.failed td{color:var(--soft)}
.tag{display:inline-block;font-size:12px;font-weight:500;border:1px solid var(--line);border-radius:99px;padding:0 9px;color:var(--soft)}
tr.chosen .tag{border-color:var(--accent);color:var(--accent)}
.plot{overflow-x:auto;margin:6px 0}
.plot svg{display:block}
.row{display:flex;flex-wrap:wrap;gap:10px 20px;align-items:flex-start}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:16px 18px;max-width:100%}
.note{border-left:4px solid var(--accent);background:var(--accent-soft);padding:8px 16px;border-radius:6px;margin:10px 0}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 20px;margin:0;font-size:14px}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere;font-variant-numeric:tabular-nums}
code{font:13px/1.5 ui-monospace,"SF Mono",Consolas,"Noto Sans Mono CJK SC",monospace;overflow-wrap:anywhere}
footer{margin-top:48px;color:var(--soft);font-size:13px}
.t{font-size:12px;fill:var(--ink)}.t.s{font-size:11px;fill:var(--soft)}.t.n{font-variant-numeric:tabular-nums}.t.axis{fill:var(--soft)}.t.strong{font-weight:650}
.t.on{fill:#fff}.t.limit-t{fill:var(--accent)}.halo{paint-order:stroke;stroke:var(--card);stroke-width:3px}
.grid{stroke:var(--line);stroke-width:1}
.limit{stroke:var(--accent);stroke-width:1.5;stroke-dasharray:5 4}
.diagonal{stroke:var(--muted);stroke-width:1.5;stroke-dasharray:4 4}
.front{fill:none;stroke:var(--blue);stroke-width:1.5;opacity:.55}
.whisker{stroke:var(--blue);stroke-width:1.4}.whisker.chosen{stroke:var(--accent)}.whisker.excluded{stroke:var(--muted)}
.dot{fill:var(--card);stroke:var(--blue);stroke-width:2}.dot.chosen{fill:var(--accent);stroke:var(--accent)}.dot.excluded{stroke:var(--muted)}
.dot.curve-dot{fill:var(--blue);stroke:none}.dot.bubble{fill:var(--blue);stroke:var(--card);stroke-width:1.5;opacity:.85}
.curve{fill:none;stroke:var(--blue);stroke-width:1.8;stroke-linejoin:round}
.bar{fill:var(--blue);opacity:.8}.bar.chosen{fill:var(--accent)}.bar.pale{opacity:.38}.speck{fill:var(--blue);opacity:.45}.mark{stroke:var(--ink);stroke-width:2}
.cell{fill:color-mix(in srgb,var(--blue) calc(var(--s)*100%),var(--paper))}
.cell.miss{fill:color-mix(in srgb,var(--accent) calc(min(1,var(--s)*2.5)*100%),var(--paper))}
@media print{main{max-width:none;padding:0}h2{break-after:avoid}.card,.scroll,.verdict{break-inside:avoid}}
"""
