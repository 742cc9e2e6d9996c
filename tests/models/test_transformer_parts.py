"""The pieces of neural families against brute force and counting."""

import itertools

import numpy as np
import pytest
import torch

from wenfang.core.examples import Span
from wenfang.models.neural.answering import Answerer, spans_of_tokens, tokens_of_spans
from wenfang.models.neural.batches import Stacker, buckets, pieces_of, windows
from wenfang.models.neural.crf_layer import CrfLayer
from wenfang.models.neural.encoder import Encoder, EncoderShape, wave_lengths, waves_of
from wenfang.models.neural.export import check_same, to_onnx, torch_run
from wenfang.models.neural.judging import best_threshold
from wenfang.models.neural.loop import to_tensors
from wenfang.models.neural.objectives import ClassObjective, SigmoidObjective, TagObjective, balanced_weights, effective_weights
from wenfang.models.neural.optimisers import Average, optimisers_for
from wenfang.models.neural.paths import Transitions, best_paths
from wenfang.models.neural.questions import Questions, pair_windows, questions_of
from wenfang.models.neural.session import Session
from wenfang.models.neural.stored_tokens import tokens_from_json
from wenfang.models.neural.tokens import PATTERNS, CharTokens, Encoded
from wenfang.models.neural.widths import serve_in
from wenfang.models.tags import TagSet

TAGS = TagSet(("A",))


def random_crf(seed=0):
    torch.manual_seed(seed)
    crf = CrfLayer(TAGS.legal)
    with torch.no_grad():
        for p in crf.parameters():
            p.normal_()
    return crf


def score(emissions, path, chain):
    total = chain.start[path[0]] + chain.end[path[-1]] + sum(emissions[t, y] for t, y in enumerate(path))
    return float(total + sum(chain.step[a, b] for a, b in itertools.pairwise(path)))


def test_log_partition_and_path_score_equal_brute_force():
    crf = random_crf()
    chain = crf.transitions()
    emissions = torch.randn(3, 4, 5)
    lengths = torch.tensor([4, 1, 3])
    tags = torch.tensor([[0, 1, 2, 3], [4, 0, 0, 0], [1, 3, 0, 0]])
    loss = crf(emissions, tags, lengths).detach().numpy()
    for b, n in enumerate(lengths.tolist()):
        every = np.array([score(emissions[b].numpy(), path, chain) for path in itertools.product(range(5), repeat=n)], np.float64)
        partition = every.max() + np.log(np.exp(every - every.max()).sum())
        assert loss[b] == pytest.approx(partition - score(emissions[b].numpy(), tags[b, :n].tolist(), chain), abs=1e-4)


def test_crf_gradients_are_finite_for_extreme_scores():
    crf = random_crf()
    emissions = (torch.randn(2, 30, 5) * 200).requires_grad_()
    crf(emissions, torch.zeros(2, 30, dtype=torch.long), torch.tensor([30, 7])).sum().backward()
    assert torch.isfinite(emissions.grad).all()
    assert torch.isfinite(crf.step.grad).all()


def test_viterbi_and_path_probability_equal_brute_force():
    rng = np.random.default_rng(1)
    chain = random_crf(1).transitions().constrained(TAGS.legal_start, TAGS.legal_end, TAGS.legal)
    emissions = rng.normal(size=(6, 5, 5)).astype(np.float32)
    lengths = np.array([5, 0, 1, 2, 4, 5], np.int32)
    paths, probabilities = best_paths(emissions, lengths, chain)
    for b, n in enumerate(lengths.tolist()):
        if not n:
            assert (len(paths[b]), probabilities[b]) == (0, 1.0)
            continue
        every = {path: score(emissions[b], path, chain) for path in itertools.product(range(5), repeat=n)}
        best = max(every, key=every.get)
        assert tuple(paths[b].tolist()) == best
        partition = np.log(sum(np.exp(s - every[best]) for s in every.values())) + every[best]
        assert probabilities[b] == pytest.approx(np.exp(every[best] - partition), abs=1e-5)


def test_constrained_paths_are_legal_whatever_the_scores():
    rng = np.random.default_rng(2)
    tags = TagSet(("A", "B"))
    L = len(tags)
    zero = np.zeros(L, np.float32)
    chain = Transitions(zero, zero, np.zeros((L, L), np.float32)).constrained(tags.legal_start, tags.legal_end, tags.legal)
    paths, _ = best_paths(rng.normal(scale=5, size=(50, 9, L)).astype(np.float32), np.full(50, 9, np.int32), chain)
    for path in paths:
        assert tags.legal_start[path[0]]
        assert tags.legal_end[path[-1]]
        assert tags.legal[path[:-1], path[1:]].all()
        assert tags.encode(tags.decode(path), 9).tolist() == path.tolist()


def test_a_very_long_path_stays_exact():
    emissions = np.zeros((1, 20_000, 5), np.float32)
    emissions[0, 10_000:10_002, :] = [[0, 9, 0, 0, 0], [0, 0, 0, 9, 0]]
    emissions[0, :, 0] += 3
    zero = np.zeros(5, np.float32)
    chain = Transitions(zero, zero, np.zeros((5, 5), np.float32)).constrained(TAGS.legal_start, TAGS.legal_end, TAGS.legal)
    (path,), (probability,) = best_paths(emissions, np.array([20_000], np.int32), chain)
    assert TAGS.decode(path) == (Span(10_000, 10_002, "A"),)
    assert 0 <= probability <= 1


@pytest.mark.parametrize(("size", "overlap"), [(8, 0), (8, 2), (8, 3), (5, 4), (1, 0)])
def test_windows_keep_every_token_once(size, overlap):
    for length in range(60):
        cut = windows(length, size, overlap)
        kept = [i for _, _, a, b in cut for i in range(a, b)]
        assert kept == list(range(length))
        assert all(s <= a <= b <= e and e - s <= size for s, e, a, b in cut)


def test_buckets_hold_every_row_once_inside_the_budget_with_little_padding():
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(3.6, 0.5, 5000), 3, 256).astype(np.int32)
    batches = list(buckets(lengths, 1024, np.random.default_rng(3)))
    assert sorted(np.concatenate(batches).tolist()) == list(range(5000))
    slots = sum(len(b) * int(lengths[b].max()) for b in batches)
    assert max(len(b) * int(lengths[b].max()) for b in batches) <= 1024
    assert 1 - lengths.sum() / slots < 0.04
    again = list(buckets(lengths, 1024, np.random.default_rng(3)))
    assert all((a == b).all() for a, b in zip(batches, again, strict=True))


def test_characters_are_folded_and_offsets_stay():
    tokens = CharTokens.learn(["Ａb好好", "\0𠮷"], min_count=1, patterns=PATTERNS["tagging"], buckets=50)
    a, b = tokens.encode(["aＢ好x", ""])
    assert a.ids[0] == tokens.encode(["Ａ"])[0].ids[0]
    assert a.ids[3] == 1
    assert len(b.ids) == 0
    assert b.grams.shape == (0, 3)
    assert a.grams.min() >= 1
    assert a.grams.max() <= 50
    again = tokens_from_json(tokens.to_json(), {})
    for text in ("aＢ好x", "\ud800\0𠮷", "好" * 100):
        assert (again.encode([text])[0].ids == tokens.encode([text])[0].ids).all()
        assert (again.encode([text])[0].grams == tokens.encode(["", text, "b"])[1].grams).all()


def test_spans_move_between_code_points_and_subwords():
    encoded = Encoded(np.arange(4, dtype=np.int32), None, np.array([[0, 1], [1, 5], [5, 8], [9, 10]], np.int32))
    assert tokens_of_spans([Span(1, 8, "X"), Span(9, 10, "Y")], encoded) == [Span(1, 3, "X"), Span(3, 4, "Y")]
    assert tokens_of_spans([Span(2, 3, "X"), Span(3, 6, "Y")], encoded) == [Span(1, 2, "X"), Span(2, 3, "Y")]
    assert tokens_of_spans([Span(8, 9, "X")], encoded) == []
    assert spans_of_tokens([Span(1, 3, "X")], encoded, "a bcd efg h") == (Span(2, 8, "X"),)


def network_of(*, tagging, buckets_=40, layers=2, hidden=16, signed=False):
    torch.manual_seed(4)
    tokens = CharTokens.learn(["天地玄黄宇宙洪荒abc"], patterns=PATTERNS["tagging" if tagging else "classification"], buckets=buckets_)
    network = Encoder(EncoderShape(len(tokens), 5, tagging, layers, hidden, 2, 2 * hidden, 0.1, buckets_, 0.1, signed=signed))
    with torch.no_grad():
        for p in network.parameters():
            p.add_(torch.randn_like(p) * 0.1)
        if network.grams is not None:
            network.grams.weight[0] = 0
    texts = ["天地" * 20, "abc", "", "玄", "洪荒宇宙" * 17]
    encoded = tokens.encode(texts)
    return network, tokens, encoded, Stacker(encoded, pieces_of(encoded, 256), tokens)


@pytest.mark.parametrize("tagging", [True, False])
@pytest.mark.parametrize("buckets_", [0, 40])
@pytest.mark.parametrize(("layers", "signed"), [(0, False), (2, False), (2, True)])
def test_our_graph_answers_as_torch_does(tagging, buckets_, layers, signed):
    network, _, _, stacker = network_of(tagging=tagging, buckets_=buckets_, layers=layers, signed=signed)
    batches = [stacker.stack(np.arange(5)), *(stacker.stack(np.array([i])) for i in range(5))]
    assert check_same(Session(to_onnx(network, batches[0])), network, batches) < 1e-5


def test_signed_attention_is_that_of_its_definition():
    """Scores by the sums of the paper, written out for each pair of tokens."""
    network = network_of(tagging=True, buckets_=0, layers=1, signed=True)[0]
    block, T, D = network.blocks[0], 9, 8
    x = torch.randn(1, T, 16)
    waves = waves_of(torch.arange(T), network.shape)
    q, k, v = block.qkv(block.attention_norm(x)).view(1, T, 3, 2, D).permute(2, 0, 3, 1, 4)
    scores = torch.zeros(1, 2, T, T)
    for i, j in itertools.product(range(T), range(T)):
        angle = (i - j) * torch.tensor(wave_lengths(network.shape))
        far = torch.cat([angle.sin(), angle.cos()])
        scores[:, :, i, j] = (q[:, :, i] * k[:, :, j]).sum(-1) + (q[:, :, i] * far).sum(-1) + (block.places[:, 0] * far).sum(-1)
    seen = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(1, T, 16)
    mixed = x + block.out(seen)
    wanted = mixed + block.down(torch.nn.functional.gelu(block.up(block.ff_norm(mixed))))
    block.eval()
    assert torch.allclose(block(x, torch.zeros(1, 1, T, T), waves), wanted, atol=1e-5)


@pytest.mark.parametrize(("width", "apart"), [("int8", 0.1), ("int8-static", 0.15), ("fp16", 0.005)])
def test_a_narrower_network_is_smaller_and_near(width, apart):
    network, _, _, stacker = network_of(tagging=False)
    batch = stacker.stack(np.arange(5))
    whole = to_onnx(network, batch)
    small = serve_in(width, whole, [batch], judge=None).onnx
    assert len(small) < len(whole)
    exact, near = Session(whole)(batch), Session(small)(batch)
    assert 0 < np.abs(exact - near).max() < apart * exact.std()


def test_fixed_scales_answer_a_text_as_among_others():
    network, _, _, stacker = network_of(tagging=False)
    batches = [stacker.stack(np.arange(5)), *(stacker.stack(np.array([i])) for i in range(5))]
    session = Session(serve_in("int8-static", to_onnx(network, batches[0]), batches, judge=None).onnx)
    alone = np.concatenate([session(b) for b in batches[1:]])
    assert session(batches[0]) == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize("lost", [set(), {"int8-static"}, {"int8-static", "int8"}, {"int8-static", "int8", "fp16"}])
def test_a_width_that_costs_score_is_not_taken(lost):
    network, _, _, stacker = network_of(tagging=False, hidden=256)  # wide enough that int8 is surely faster
    samples = [stacker.stack(np.arange(5)), *(stacker.stack(np.array([i])) for i in range(5))]
    judged = []

    def judge(run, budget):
        judged.append(budget)
        apart = np.abs(run(samples[0]) - exact).max()
        kind = "fp32" if apart == 0 else "fp16" if apart < 1e-2 * exact.std() else "int8" if budget == 0 else "int8-static"
        return 0.5 if kind in lost else 0.9

    exact = Session(to_onnx(network, samples[0]))(samples[0])
    served = serve_in("auto", to_onnx(network, samples[0]), samples, judge=judge)
    assert served.width not in lost
    assert {t["width"]: t.get("score") for t in served.tried}[served.width] == 0.9
    if len(lost) == 3:
        assert served.width == "fp32"


def test_without_time_the_exact_network_is_served():
    network, _, _, stacker = network_of(tagging=False)
    samples = [stacker.stack(np.arange(5)), stacker.stack(np.array([0]))]
    assert serve_in("auto", to_onnx(network, samples[0]), samples, judge=lambda *_: 1.0, texts=1000, left_s=0.0).width == "fp32"


def asked(encoded):
    return Questions(encoded, np.arange(len(encoded)), len(encoded))


@pytest.mark.parametrize("tagging", [True, False])
def test_padding_and_neighbours_change_nothing(tagging):
    network, tokens, encoded, _ = network_of(tagging=tagging)
    together, alone = (Answerer(torch_run(network), tokens, size=16, budget_tokens=budget) for budget in (4096, 0))
    if tagging:
        zero = np.zeros(5, np.float32)
        chain = Transitions(zero, zero, np.zeros((5, 5), np.float32))
        (one, p), (other, q) = together.tag_paths(encoded, chain), alone.tag_paths(encoded, chain)
        assert [a.tolist() for a in one] == [b.tolist() for b in other]
        assert p == pytest.approx(q, abs=1e-4)
    else:
        assert together.probabilities(asked(encoded)) == pytest.approx(alone.probabilities(asked(encoded)), abs=1e-5)


def test_windows_of_a_long_text_are_averaged_by_their_share():
    network, tokens, _, _ = network_of(tagging=False, buckets_=0)  # n-grams would look across the cut
    answerer = Answerer(torch_run(network), tokens, size=8, budget_tokens=64)
    first, rest, whole = answerer.probabilities(questions_of(tokens, ["天地玄黄宇宙洪荒", "宇宙洪荒abca", "天地玄黄宇宙洪荒" + "宇宙洪荒abca"], [], size=8))
    assert whole == pytest.approx((first + rest) / 2, abs=1e-6)


def test_class_weights_lift_the_tail_and_keep_the_mean():
    labels = np.array([0] * 90 + [1] * 10)
    weights = balanced_weights(labels, 2)
    assert weights[95] == pytest.approx(3 * weights[0])
    assert weights.mean() == pytest.approx(1)
    balanced = effective_weights(labels, 2)
    assert balanced[95] / balanced[0] == pytest.approx((1 - 0.999**90) / (1 - 0.999**10))
    assert balanced.mean() == pytest.approx(1)


def class_batch(n=4):
    tokens = CharTokens("ab")
    encoded = tokens.encode(["ab"] * n)
    pieces = pieces_of(encoded, 8)
    return pieces, Stacker(encoded, pieces, tokens).stack(np.arange(n))


def test_kin_of_cross_entropy_by_hand():
    labels = np.array([0, 0, 0, 1])
    pieces, batch = class_batch()
    scores = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 3.0]])
    p = scores.softmax(dim=1)[torch.arange(4), torch.from_numpy(labels)].numpy()

    def loss(**how):
        return float(ClassObjective(labels, pieces, count=2, **how)(scores, batch))

    assert loss() == pytest.approx(-np.log(p).sum())
    assert loss(loss="focal", gamma=2.0) == pytest.approx((-((1 - p) ** 2) * np.log(p)).sum(), rel=1e-5)
    assert loss(weights=np.array([1, 0, 2, 0], np.float32)) == pytest.approx(-np.log(p[0]) - 2 * np.log(p[2]))
    prior = torch.log(torch.tensor([0.75, 0.25]))
    assert loss(adjustment=1.0) == pytest.approx(float(torch.nn.functional.cross_entropy(scores + prior, torch.from_numpy(labels), reduction="sum")))
    lead = torch.tensor([3**-0.25, 1.0])
    behind = scores - torch.nn.functional.one_hot(torch.from_numpy(labels)) * lead
    assert loss(loss="ldam", margin=1.0) == pytest.approx(float(torch.nn.functional.cross_entropy(behind, torch.from_numpy(labels), reduction="sum")), rel=1e-5)
    assert loss(loss="class-balanced") == pytest.approx((-np.log(p) * effective_weights(labels, 2)).sum(), rel=1e-5)


def test_parts_of_a_batch_are_the_batch():
    network, _, encoded, stacker = network_of(tagging=True)
    batch = stacker.stack(np.arange(5))
    objective = TagObjective(
        [np.zeros(len(e.ids), np.int32) for e in encoded], stacker.pieces, head=1, crf=random_crf().requires_grad_(False), weights=np.array([1, 2, 1, 0.5, 1], np.float32)
    )
    network.eval().requires_grad_(False)
    whole = objective(network.scores(*to_tensors(batch, torch.device("cpu"))), batch)
    for count in (2, 3, 9):
        parts = batch.parts(count)
        assert sum(len(p.rows) for p in parts) == 5
        assert sum(objective.weight(p) for p in parts) == pytest.approx(objective.weight(batch))
        assert float(sum(objective(network.scores(*to_tensors(p, torch.device("cpu"))), p) for p in parts)) == pytest.approx(float(whole), rel=1e-5)


def test_disagreement_is_zero_only_between_equals():
    pieces, batch = class_batch()
    objective = ClassObjective(np.array([0, 1, 0, 1]), pieces, count=2)
    one, other = torch.randn(4, 2), torch.randn(4, 2)
    assert float(objective.apart(one, one, batch)) == 0
    assert float(objective.apart(one, other, batch)) == pytest.approx(float(objective.apart(other, one, batch)))
    assert float(objective.apart(one, other, batch)) > 0


def test_lower_layers_learn_slower():
    network = network_of(tagging=True, buckets_=0)[0]
    (optimiser,) = optimisers_for(network, None, rate=1.0, head_rate=5.0, gram_rate=1.0, weight_decay=0.01, layer_decay=0.5)
    rate = {id(p): g["lr"] for g in optimiser.param_groups for p in g["params"]}
    named = dict(network.named_parameters())
    assert {id(p) for p in named.values()} == set(rate)
    assert [rate[id(named[n])] for n in ("head.weight", "blocks.1.up.weight", "blocks.0.up.bias", "chars.weight", "distance")] == [1.0, 0.5, 0.25, 0.125, 0.125]


def test_the_average_follows_and_steps_aside():
    weight = torch.nn.Parameter(torch.zeros(2))
    average = Average({"w": weight}, 0.9)
    with torch.no_grad():
        weight += 1
    for step in range(1, 801):
        average.step(step)
    assert average.mean["w"].tolist() == pytest.approx([1, 1], abs=1e-3)
    with torch.no_grad():
        weight += 1
    with average.in_place():
        assert weight.tolist() == pytest.approx([1, 1], abs=1e-3)
    assert weight.tolist() == [2, 2]


def test_windows_vote_or_the_surest_rules():
    outputs = {5: [3.0, 0.0], 6: [0.0, 0.2], 7: [0.0, 0.2]}
    tokens = CharTokens("abc", buckets=0)

    def run(batch):
        return np.array([outputs[int(row[1]) + 2] for row in batch.ids], np.float32)  # a, b, c are tokens 3, 4, 5

    answerer = Answerer(run, tokens, size=2, budget_tokens=0)
    questions = questions_of(tokens, ["aabbcc", "aa"], [], size=2)
    mean, vote, best = (answerer.probabilities(questions, aggregate=how) for how in ("mean", "vote", "max"))
    assert mean[0].argmax() == best[0].argmax() == 0
    assert vote[0] == pytest.approx([1 / 3, 2 / 3], abs=0.01)
    assert (mean[1] == vote[1]).all()
    for how in ("mean", "vote", "max"):
        assert answerer.probabilities(questions, sigmoid=True, aggregate=how).max() <= 1


def test_pairs_are_read_whole_whatever_their_lengths():
    for room in (4, 5, 9):
        for a, b in itertools.product(range(25), range(25)):
            cuts = pair_windows(a, b, room)
            assert {i for (s, e), _ in cuts for i in range(s, e)} == set(range(a))
            assert {i for _, (s, e) in cuts for i in range(s, e)} == set(range(b))
            assert all(x[1] - x[0] + y[1] - y[0] <= room for x, y in cuts)
            assert len(cuts) <= max(1, -(-2 * max(a, b) // (room - 1)) + 1)


@pytest.mark.parametrize("buckets_", [0, 40])
def test_our_graph_compares_pairs_as_torch_does(buckets_):
    torch.manual_seed(4)
    tokens = CharTokens("天地玄黄abc", patterns=PATTERNS["classification"], buckets=buckets_)
    network = Encoder(EncoderShape(len(tokens), 3, False, 1, 16, 2, 32, 0.0, buckets_, 0.0, pairs=True))
    with torch.no_grad():
        for p in network.parameters():
            p.add_(torch.randn_like(p) * 0.1)
        if network.grams is not None:
            network.grams.weight[0] = 0
    questions = questions_of(tokens, ["天地", "", "abc" * 9, ""], ["玄黄天", "天", "玄" * 30, ""], size=20)
    assert questions.owners.tolist() == [0, 1, 2, 2, 2, 3]
    assert questions.shares().tolist() == pytest.approx([1, 1, 1 / 3, 1 / 3, 1 / 3, 1])
    stacker = Stacker(questions.encoded, pieces_of(questions.encoded, 20), tokens)
    batches = [stacker.stack(np.arange(6)), *(stacker.stack(np.array([i])) for i in range(6))]
    assert check_same(Session(to_onnx(network, batches[0])), network, batches) < 1e-5
    scores = torch_run(network)(batches[0])
    turned = questions_of(tokens, ["玄黄天"], ["天地"], size=20)
    assert np.abs(torch_run(network)(Stacker(turned.encoded, pieces_of(turned.encoded, 20), tokens).stack(np.arange(1))) - scores[0]).max() > 1e-3


def test_sigmoid_loss_by_hand():
    pieces, batch = class_batch(2)
    scores = torch.tensor([[1.0, -1.0], [0.0, 2.0]])
    targets = np.array([[1, 0], [0, 0.5]], np.float32)
    p = 1 / (1 + np.exp(-scores.numpy()))
    wanted = -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).sum(axis=1)
    assert float(SigmoidObjective(targets, pieces, weights=np.array([1, 3], np.float32))(scores, batch)) == pytest.approx(wanted[0] + 3 * wanted[1], rel=1e-5)


def test_the_best_threshold_equals_trying_all():
    rng = np.random.default_rng(5)
    for _ in range(30):
        p = rng.integers(0, 10, (8, 3)) / 10
        gold = rng.random((8, 3)) < 0.4
        threshold, f1 = best_threshold(p, gold)

        def f(t, p=p, gold=gold):
            return 2 * ((p >= t) & gold).sum() / max(1, (p >= t).sum() + gold.sum())

        assert f(threshold) == pytest.approx(f1)
        assert f1 == pytest.approx(max(f(t) for t in np.unique(p)))
