"""Boxes: how much they overlap, which of them stay, what they should be, how good they are.

A box is (left, top, right, bottom) in pixels, and 0 is the outer edge of the first pixel; several
boxes are an array (N, 4). All of this is NumPy on the host: a network sees none of it, only what
`match` makes for its loss, and `decode` and `nms` make boxes of its output.
"""

import numpy as np

SPREAD = np.array([0.1, 0.1, 0.2, 0.2])  # of offsets: makes their losses equally large, as in SSD


def area(boxes: np.ndarray) -> np.ndarray:
    """Width times height of boxes (..., 4) -> (...)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The intersection over the union of each of boxes a (N, 4) with each of b (M, 4) -> (N, M)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.maximum(high - low, 0).prod(2)
    union = area(a)[:, None] + area(b)[None] - common
    return common / np.where(union > 0, union, 1)


def nms(boxes: np.ndarray, scores: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """Numbers of the boxes (N, 4) that stay, the best first: non-maximum suppression.

    From the best score (N,) down a box stays if its overlap (IoU) with none that stayed is above
    the threshold; of equal scores the first box comes first.
    """
    order = np.argsort(-scores, kind="stable")
    near = iou(boxes, boxes) > threshold
    kept: list[int] = []
    for i in order:
        if not near[i, kept].any():
            kept.append(i)
    return np.array(kept, np.int64)


def suppressed(boxes: np.ndarray, chances: np.ndarray, least: float) -> tuple[np.ndarray, ...]:
    """Boxes, labels and scores that stay of boxes (A, 4) with chances (A, classes)."""
    kept = []
    for c, chance in enumerate(chances.T):
        mine = np.argsort(-chance, kind="stable")[:300]
        mine = mine[chance[mine] > least]
        mine = mine[nms(boxes[mine], chance[mine])]
        kept.append((boxes[mine], np.full(len(mine), c), chance[mine]))
    joined = [np.concatenate(column) for column in zip(*kept)]
    order = np.argsort(-joined[2], kind="stable")
    return tuple(column[order] for column in joined)


# --- anchors


def shapes_of(boxes: np.ndarray, count: int, rounds: int = 50) -> np.ndarray:
    """So many (width, height) that stand for those of boxes (N, 4): k-means in logarithms.

    Redmon and Farhadi, "YOLO9000", 2017, section 2. Sorted by area; starts at its quantiles.
    """
    sizes = np.log(boxes[:, 2:] - boxes[:, :2])
    ranks = np.argsort(sizes.sum(1), kind="stable")
    centres = sizes[ranks[((np.arange(count) + 0.5) / count * len(sizes)).astype(int)]]
    for _ in range(rounds):
        nearest = ((sizes[:, None] - centres) ** 2).sum(2).argmin(1)
        groups = [sizes[nearest == i] for i in range(count)]
        centres = np.stack([g.mean(0) if len(g) else c for g, c in zip(groups, centres)])
    return np.exp(centres[np.argsort(centres.sum(1))])


def anchors(rows: int, columns: int, stride: float, shapes: np.ndarray) -> np.ndarray:
    """Boxes of all shapes (A, 2) about the centre of each cell: (rows * columns * A, 4).

    In the order of a network's output (rows, columns, A): cells are stride pixels wide.
    """
    y, x = (np.indices((rows, columns)) + 0.5) * stride
    centre = np.stack([x, y], axis=2)[:, :, None]
    return np.concatenate([centre - shapes / 2, centre + shapes / 2], axis=3).reshape(-1, 4)


def encode(boxes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """What leads from anchors (N, 4) to boxes (N, 4): moves of the centre, logarithms of growth.

    Moves in widths and heights of the anchor, all divided by SPREAD. Girshick et al., "Rich feature
    hierarchies", 2014, appendix C; Liu et al., "SSD", 2016, section 2.2.
    """
    centre, size = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
    move = ((boxes[:, :2] + boxes[:, 2:]) / 2 - centre) / size
    growth = np.log((boxes[:, 2:] - boxes[:, :2]) / size)
    return np.concatenate([move, growth], axis=1) / SPREAD


def decode(offsets: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """The boxes (N, 4) to which offsets (N, 4) lead from anchors; none grows beyond 50 times."""
    centre, size = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
    move, growth = offsets[:, :2] * SPREAD[:2], offsets[:, 2:] * SPREAD[2:]
    centre = centre + move * size
    half = size * np.exp(np.minimum(growth, np.log(50))) / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def match(
    anchors: np.ndarray, boxes: np.ndarray, labels: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a network should say of each anchor: class (A, classes), offsets (A, 4), weight (A,).

    An anchor means the box that it overlaps most, if that is by an IoU of at least 0.5; a box that
    no anchor would mean gets the one that overlaps it most. Anchors at 0.4 to 0.5 are neither this
    nor background: their weight is 0. Lin et al., "Focal loss", 2017, section 4.
    """
    says = np.zeros((len(anchors), classes), np.float32)
    offsets = np.zeros((len(anchors), 4), np.float32)
    if not len(boxes):
        return says, offsets, np.ones(len(anchors), np.float32)
    overlap = iou(anchors, boxes)
    best = overlap.argmax(0)
    overlap[best, np.arange(len(boxes))] += 1  # before all others
    target, most = overlap.argmax(1), overlap.max(1)
    mine = np.flatnonzero(most >= 0.5)
    says[mine, labels[target[mine]]] = 1
    offsets[mine] = encode(boxes[target[mine]], anchors[mine])
    return says, offsets, ((most < 0.4) | (most >= 0.5)).astype(np.float32)


# --- how good detections are


def average_precision(hits: np.ndarray, total: int) -> float:
    """The area under precision as a function of recall; NaN where there is nothing to find.

    hits (N,): whether each detection is right, the surest first; total: how many objects there
    are. Precision at a recall is the best at that recall or a higher one: Everingham et al., "The
    PASCAL visual object classes challenge: a retrospective", 2015, the measure from 2010 on.
    """
    if not total:
        return float("nan")
    found = np.cumsum(hits)
    precision = found / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best[np.flatnonzero(hits)].sum() / total)


def hits_of(found: np.ndarray, right: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """Whether each box of one class found in an image (N, 4), the surest first, hits one (M, 4).

    Each goes for the box that it overlaps most: a hit if by at least the threshold, and if none
    before it has hit the same one.
    """
    hits, taken = np.zeros(len(found), bool), np.zeros(len(right), bool)
    if not len(right):
        return hits
    overlap = iou(found, right)
    for i, j in enumerate(overlap.argmax(1)):
        hits[i] = overlap[i, j] >= threshold and not taken[j]
        taken[j] |= hits[i]
    return hits


def average_precisions(
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
    right: list[tuple[np.ndarray, np.ndarray]],
    classes: int,
    threshold: float = 0.5,
) -> np.ndarray:
    """The average precision of each class (classes,); their mean is mAP@threshold.

    found: of each image boxes (N, 4), labels (N,) and scores (N,); right: boxes and labels.
    """
    precisions = []
    for c in range(classes):
        hits, scores, total = [np.zeros(0, bool)], [np.zeros(0)], 0
        for (boxes, labels, sure), (true_boxes, true_labels) in zip(found, right, strict=True):
            mine = np.flatnonzero(labels == c)
            mine = mine[np.argsort(-sure[mine], kind="stable")]
            hits.append(hits_of(boxes[mine], true_boxes[true_labels == c], threshold))
            scores.append(sure[mine])
            total += int((true_labels == c).sum())
        order = np.argsort(-np.concatenate(scores), kind="stable")
        precisions.append(average_precision(np.concatenate(hits)[order], total))
    return np.array(precisions)
