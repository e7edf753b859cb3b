"""Losses with margins, the focal loss, and cross-entropy with all its options.

Values and gradients are those of PyTorch 2.13 in float64; of the contrastive and focal losses,
which it has not, of their formulas written in it.
"""

import numpy as np
import pytest

import minidl
from minidl import Tensor, nn
from minidl.nn import functional as F


def wave(*shape, phase=0.0):
    """Numbers that every framework can make alike."""
    return np.sin(np.arange(np.prod(shape)) * 0.7 + phase).reshape(shape)


LABEL, WEIGHT = Tensor(np.array([0, 2, 1, 1])), Tensor(np.array([0.5, 1.0, 2.0]))
SIGN = Tensor(np.where(wave(2, 3, phase=2) > 0, 1.0, -1.0))
ALIKE = Tensor(np.array([1.0, 0.0, 0.0]))
HARD = Tensor(np.array([[1.0, 0, 1], [0, 0, 1]]))
SOFT = Tensor(np.array([[0.2, 0.9, 1], [0, 0.5, 1]]))
LOGITS, SCORES = 2 * wave(4, 3), 1.5 * wave(2, 3)
THREE = [wave(3, 4, phase=phase) for phase in (0, 0.5, 1.1)]
CASES = {
    "multi_margin p=1": (lambda x: F.multi_margin_loss(x, LABEL, margin=0.7), [LOGITS]),
    "multi_margin p=2": (lambda x: F.multi_margin_loss(x, LABEL, p=2, margin=0.7), [LOGITS]),
    "multi_margin w": (lambda x: nn.MultiMarginLoss(2, weight=WEIGHT)(x, LABEL), [LOGITS]),
    "hinge": (lambda x: nn.HingeLoss()(x, SIGN), [SCORES]),
    "hinge2": (
        lambda x: F.hinge_loss(x, SIGN, margin=0.8, squared=True, reduction="sum"), [SCORES]
    ),
    "hinge_embedding": (lambda x: nn.HingeEmbeddingLoss(1.2)(x, SIGN), [2 * np.abs(wave(2, 3))]),
    "margin_ranking": (
        lambda a, b: nn.MarginRankingLoss(0.3)(a, b, SIGN), [SCORES, wave(2, 3, phase=1)]
    ),
    "triplet": (nn.TripletMarginLoss(), THREE),
    "triplet swap": (nn.TripletMarginLoss(0.4, swap=True, reduction="sum"), THREE),
    "contrastive": (lambda a, b: nn.ContrastiveLoss(1.5)(a, b, ALIKE), THREE[:2]),
    "focal": (lambda x: nn.SigmoidFocalLoss(reduction="sum")(x, HARD), [2 * SCORES]),
    "focal g=1.5": (
        lambda x: F.sigmoid_focal_loss(x, HARD, -1, 1.5, reduction="mean"), [2 * SCORES]
    ),
    "focal soft": (lambda x: nn.SigmoidFocalLoss(alpha=0.4)(x, SOFT), [SCORES]),
    "ce smooth w": (
        lambda x: nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=0.1)(x, LABEL), [LOGITS]
    ),
    "ce smooth w sum": (
        lambda x: F.cross_entropy(x, LABEL, WEIGHT, reduction="sum", label_smoothing=0.1), [LOGITS]
    ),
    "ce ignore": (
        lambda x: F.cross_entropy(
            x, Tensor(np.array([0, -100, 1, 1])), WEIGHT, -100, label_smoothing=0.1
        ),
        [LOGITS],
    ),
}  # fmt: skip
TORCH = {
    "multi_margin p=1": [1.1287793065885228, [-0.16666666667, 0.08333333333, 0.08333333333,
        0.08333333333, 0.08333333333, -0.16666666667, 0.08333333333, -0.16666666667,
        0.08333333333, 0.0, -0.08333333333, 0.08333333333]],
    "multi_margin p=2": [2.4862892087868556, [-0.77655580574, 0.33140589575, 0.44514991,
        0.52133086478, 0.34525712595, -0.86658799073, 0.1536256134, -0.38735427165,
        0.23372865825, 0.0, -0.22706054505, 0.22706054505]],
    "multi_margin w": [4.078032414709868, [-0.43827790287, 0.19070294787, 0.247574955,
        1.14266172956, 0.7905142519, -1.93317598146, 0.2036256134, -0.48735427165,
        0.28372865825, 0.0, -0.27706054505, 0.27706054505]],
    "hinge": [1.2971615829664822, [-0.16666666667, -0.16666666667, 0.16666666667, 0.16666666667,
        0.16666666667, 0.16666666667]],
    "hinge2": [11.989765553648969, [-1.6, -0.0, 4.55634918997, 4.18962809995, 2.60496445047,
        0.54765031693]],
    "hinge_embedding": [0.38614876979738866, [0.16666666667, 0.16666666667, 0.0, 0.0,
        -0.16666666667, -0.16666666667]],
    "margin_ranking": [1.0480749097804387, [-0.16666666667, -0.16666666667, 0.16666666667,
        0.16666666667, 0.16666666667, 0.16666666667], [0.16666666667, 0.16666666667,
        -0.16666666667, -0.16666666667, -0.16666666667, -0.16666666667]],
    "triplet": [0.2759537212565375, [-0.02686189061, -0.0657722575, -0.07374877998,
        -0.0470399749, -0.00374789201, 0.04455515859, 0.07190333894, 0.06543437249,
        0.02818855622, -0.02033787613, -0.05929897605, -0.07037072948], [0.2422663465,
        0.1454435283, -0.01978389154, -0.17570687572, -0.24006618974, -0.19781783191,
        -0.06253288588, 0.10216202433, 0.20947438464, 0.22262547678, 0.1310721092,
        -0.02212673876], [-0.21540445589, -0.0796712708, 0.09353267152, 0.22274685062,
        0.24381408175, 0.15326267332, -0.00937045306, -0.16759639682, -0.23766294086,
        -0.20228760065, -0.07177313315, 0.09249746825]],
    "triplet swap": [0.8924964592708179, [-0.7267990395, -0.4363305849, 0.05935167462,
        0.52712062716, 0.72019856923, 0.59345349573, 0.18759865765, -0.306486073,
        -0.62842315392, -0.66787643034, -0.3932163276, 0.06638021628], [1.2490748873,
        0.48935653906, -0.50051514541, -1.25498804574, -1.39963522869, -0.89712311444,
        0.02731872814, 0.93891085567, 1.36454954932, 1.17524668284, 0.43320568979,
        -0.51257995608], [-0.5222758478, -0.05302595416, 0.44116347079, 0.72786741858,
        0.67943665946, 0.30366961871, -0.21491738579, -0.63242478267, -0.73612639539,
        -0.5073702525, -0.03998936219, 0.4461997398]],
    "contrastive": [0.2862470684239052, [-0.15980817954, -0.09594013291, 0.0130502141,
        0.11590299828, -0.19585433651, -0.16138665866, -0.05101650044, 0.08334732814,
        0.16451053243, 0.17483873162, 0.10293737112, -0.01737721574], [0.15980817954,
        0.09594013291, -0.0130502141, -0.11590299828, 0.19585433651, 0.16138665866,
        0.05101650044, -0.08334732814, -0.16451053243, -0.17483873162, -0.10293737112,
        0.01737721574]],
    "focal": [3.669218914078842, [-0.07457169879, 0.79924619881, -8.910166e-05, 0.84482645462,
        0.57785877965, -0.19790607133]],
    "focal g=1.5": [1.0015883280380267, [-0.06009584953, 0.1722403556, -0.0002230106,
        0.18076353374, 0.13166905849, -0.13464443393]],
    "focal soft": [0.1555406158071618, [0.01670406053, -0.00426584997, -0.00119611631,
        0.0890949987, 0.00256338512, -0.03593844158]],
    "ce smooth w": [2.0166831697456287, [-0.09303584481, 0.03128605881, 0.061749786,
        0.29292173145, 0.09572645184, -0.38864818329, 0.06239155547, -0.15445765787,
        0.09206610239, 0.0158138788, -0.13718544459, 0.12137156578]],
    "ce smooth w sum": [9.075074263855328, [-0.41866130162, 0.14078726462, 0.277874037,
        1.31814779154, 0.43076903327, -1.74891682481, 0.28076199964, -0.6950594604,
        0.41429746077, 0.07116245461, -0.61733450064, 0.54617204603]],
    "ce ignore": [1.5256718278560193, [-0.16746452065, 0.05631490585, 0.1111496148, 0.0, 0.0,
        0.0, 0.11230479985, -0.27802378416, 0.16571898431, 0.02846498185, -0.24693380026,
        0.21846881841]],
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_pytorchs(name):
    loss, inputs = CASES[name]
    tensors = [Tensor(a, requires_grad=True) for a in inputs]
    value = loss(*tensors)
    value.backward()
    right, *slopes = TORCH[name]
    assert value.item() == pytest.approx(right, rel=1e-13)
    for tensor, slope in zip(tensors, slopes, strict=True):
        np.testing.assert_allclose(tensor.grad.numpy().ravel(), slope, rtol=1e-9, atol=2e-11)


@pytest.mark.parametrize("name", [n for n in CASES if " w" not in n and n != "ce ignore"])
def test_float32_is_near(name):
    loss, inputs = CASES[name]
    args = [Tensor(a.astype(np.float32)) for a in inputs]
    targets = {n: t for n, t in globals().items() if isinstance(t, Tensor) and t.dtype.kind == "f"}
    with pytest.MonkeyPatch.context() as patch:
        for n, t in targets.items():
            patch.setitem(globals(), n, t.astype("float32"))
        value = loss(*args)
    assert value.dtype == np.float32
    assert value.item() == pytest.approx(TORCH[name][0], rel=1e-5)


def test_reductions():
    x = Tensor(LOGITS)
    rows = F.multi_margin_loss(x, LABEL, reduction="none")
    assert rows.shape == (4,)
    assert F.multi_margin_loss(x, LABEL, reduction="sum").item() == pytest.approx(rows.sum().item())
    near = F.triplet_margin_loss(*map(Tensor, THREE), reduction="none")
    assert near.shape == (3,)
    assert F.sigmoid_focal_loss(Tensor(SCORES), HARD).shape == (2, 3)  # torchvision's default
    assert F.pairwise_distance(Tensor(THREE[0]), Tensor(THREE[1])).shape == (3,)
    with pytest.raises(ValueError, match="unknown reduction 'average'"):
        nn.TripletMarginLoss(reduction="average")


def test_the_focal_loss_without_a_focus_is_cross_entropy():
    x, entropy = Tensor(SCORES), F.binary_cross_entropy_with_logits
    plain = F.sigmoid_focal_loss(x, HARD, alpha=-1, gamma=0.0, reduction="mean")
    assert plain.item() == entropy(x, HARD).item()
    far = Tensor(np.array([[80.0, -80.0]], np.float32), requires_grad=True)
    loss = F.sigmoid_focal_loss(far, Tensor(np.array([[0.0, 0.0]], np.float32)), reduction="sum")
    loss.backward()
    assert loss.item() == pytest.approx(0.75 * 80)  # nothing overflows, nothing is NaN
    np.testing.assert_allclose(far.grad.numpy(), [[0.75, 0]], atol=1e-6)


def test_a_perfect_answer_costs_nothing():
    x = Tensor(np.array([[5.0, -5], [-5, 5]]), requires_grad=True)
    loss = F.multi_margin_loss(x, Tensor([0, 1])) + F.hinge_loss(x, Tensor(np.sign(x.tolist())))
    loss.backward()
    assert loss.item() == 0
    np.testing.assert_array_equal(x.grad.numpy(), np.zeros((2, 2)))


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda x: F.multi_margin_loss(x, Tensor([0, 3, 1, 1])), "label 3 is out of range for 3"),
        (lambda x: F.multi_margin_loss(x[0], LABEL), "input must be scores"),
        (lambda x: F.multi_margin_loss(x, LABEL, p=3), "known: 1, 2"),
        (lambda x: F.hinge_loss(x, SIGN), "hinge_loss: target needs the shape"),
        (lambda x: F.triplet_margin_loss(x, x, x[:2]), "triplet_margin_loss: negative needs"),
        (lambda x: F.contrastive_loss(x, x, LABEL[:2]), "contrastive_loss: target needs"),
    ],
)
def test_what_does_not_fit_is_refused(call, match):
    with pytest.raises((ValueError, IndexError), match=match):
        call(Tensor(LOGITS))


def test_captured_steps_replay_them():
    base = nn.Linear(4, 3)
    optimizer = minidl.optim.SGD(base.parameters(), lr=0.1)
    triplet = nn.TripletMarginLoss()

    @minidl.capture
    def step(a, p, n, y):
        optimizer.zero_grad()
        loss = triplet(base(a), base(p), base(n)) + F.multi_margin_loss(base(a), y)
        loss.backward()
        optimizer.step()
        return loss

    batch = [Tensor(a.astype(np.float32)) for a in THREE]
    losses = [step(*batch, LABEL[:3]).item() for _ in range(8)]
    assert step.replayed and losses[-1] < losses[0]
