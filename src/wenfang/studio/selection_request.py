"""What a selection is asked: data, limits, and what to do with the winner."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from wenfang.core.operation import Request
from wenfang.core.records import Task

from .datasets import FILE
from .names import Name, ProjectName

__all__ = ["RunSelection"]


class RunSelection(Request):
    """Data, limits, and what to do with the winner."""

    train: str = Field(description="file, or dv_… of a version that is there already", json_schema_extra={**FILE, "positional": True})
    valid: str | None = Field(None, description="file of the validation split; a tenth of the data unless given", json_schema_extra=FILE)
    test: str | None = Field(None, description="file of the test split; a tenth of the data unless given", json_schema_extra=FILE)
    task: Task | None = Field(None, description="guessed from the data unless given")
    text: str | None = Field(None, description="column of the text; guessed unless given")
    label: str | None = Field(None, description="column of the label; guessed unless given")
    id: str | None = Field(None, description="column of the example's id")
    group: str | None = Field(None, description="column whose equal values stay on one side of a split")
    text_b: str | None = Field(None, description="column of the second text of pairs; guessed unless given")
    target: str | None = Field(None, description="column of the text that should be generated; guessed unless given")
    weight: str | None = Field(None, description="column of how much each example counts in learning")
    graded: bool | None = Field(None, description="labels of pairs are grades; guessed unless given")
    name: Name | None = Field(None, description="of the dataset, the model and the service; the file's name unless given")
    budget_s: float = Field(300, gt=0, le=7 * 86400, description="seconds for search, refit and measuring")
    max_latency_ms: float | None = Field(None, gt=0, description="limit of the p99 of a single text")
    max_size_bytes: int | None = Field(None, gt=0, description="limit of the bundle")
    max_memory_bytes: int | None = Field(None, gt=0, description="limit of a replica's memory")
    max_cost_per_million: float | None = Field(None, gt=0, description="limit of what one million requests cost, at the prices of the settings")
    metric: str | None = Field(None, description="to choose by, such as accuracy or macro_f1; the task's own unless given")
    preset: str | None = Field(None, description="scenario that fills what is not given here")
    families: list[str] | None = Field(None, description="only these")
    objectives: list[str] = Field(["score"], description="score, or with latency, size, memory: what the front should span")
    parallel: int = Field(1, ge=1, le=64, description="fits at once, each in a process of its own; latency is always measured alone")
    pretrained: list[str] = Field(default_factory=list, description="to start from: names of what model pretrain made, or local directories of the transformers library")
    upstreams: list[str] = Field(
        default_factory=list,
        description="servers of the OpenAI protocol to try, as URL#model@VARIABLE=IN/OUT (the name of the key's variable, prices of a million tokens); texts are sent there",
    )
    checks: str | None = Field(None, description="TOML file of your own slices, robustness tests, a price; see docs/checks.md", json_schema_extra=FILE)
    teacher: str | None = Field(None, description="model version whose opinion the candidates learn from, mv_… or name:number")
    teacher_share: float = Field(0.5, ge=0, le=1, description="share of the teacher's probabilities in the targets of labelled examples")
    unlabelled: list[str] = Field(default_factory=list, description="files or dv_… of texts that the teacher labels", json_schema_extra=FILE)
    seed: int = Field(0, ge=0, lt=2**31)
    serve: bool = Field(False, description="deploy the winner as a service of that name")
    promote: Literal["auto", "always", "never"] = Field(
        "auto", description="make it the champion of its name: auto when it is better than the present one, or shown to be no worse by more than the margin"
    )
    margin: float = Field(
        0.02, ge=0, le=1, description="update policy: by how much of the score (0.02: two points) the new model may be worse at most; smaller asks for more test examples"
    )
    project: ProjectName = "default"
