"""Spoken digits, real ones: which digit was said, and which digits were said one after the other.

    minidl data fetch fsdd                       # or MINIDL_DATA: a folder with fsdd.npz
    python examples/spoken_digits.py             # both tasks
    python examples/spoken_digits.py --task digits --seed 1
    python examples/spoken_digits.py --quick     # a few recordings, to see that it runs

A sound becomes a picture of its pitches over time (log-mel), 100 frames a second. Filters along
time (Conv1d), a layer at every step (TimeDistributed) and a recurrent layer that reads from both
ends (GRU) make of it what was said: a digit, by cross-entropy; or digits, of which nobody says when
each begins, by CTC. The official split of the Free Spoken Digit Dataset: 2,700 recordings to learn
from, 300 others, of the same six people, to be tested on.
"""

import argparse
import json
import time
from itertools import groupby
from pathlib import Path

import numpy as np

import minidl
from minidl import nn, optim
from minidl.data import DataLoader, audio, fsdd
from minidl.metrics import confusion_matrix
from minidl.nn import functional as F
from minidl.train import fit, predict

MELS, FRAMES = 40, 96  # pitches; frames of a digit, which hardly ever takes a second
SPOKEN, BLANK = 4, 0  # digits of a sequence; the class that says nothing, so digit d is class d + 1
PAUSE = 20  # frames of silence behind a digit, at most
QUIET = 1e-4  # no sound is taken to be quieter: log-mel of silence is its logarithm


def features(recordings):
    """The log-mel of each recording, (frames, MELS), cut to FRAMES of them."""
    sounds = (sound for sound, _ in (recordings[i] for i in range(len(recordings))))
    return [audio.log_mel(s, recordings.rate, mels=MELS, floor=QUIET)[:FRAMES] for s in sounds]


class Scale:
    """Makes log-mels of the training set have mean 0 and variance 1, each pitch by itself."""

    def __init__(self, logmels):
        rows = np.concatenate(logmels)
        self.mean, self.std = rows.mean(0), rows.std(0)
        self.silence = self(np.full(MELS, np.log(QUIET), np.float32))

    def __call__(self, x):
        return (x - self.mean) / self.std


def padded(rows, length, silence, start=0):
    """rows (frames, MELS) from frame `start` on, with silence before and behind."""
    out = np.tile(silence, (length, 1))
    out[start : start + len(rows)] = rows[: length - start]
    return out


class Shaken:
    """A training set whose every look at a recording differs.

    It comes earlier or later, is louder or quieter, and a few pitches and frames are missing (Park
    et al., "SpecAugment", 2019).
    """

    def __init__(self, rows, labels, silence, seed):
        self.rows, self.labels, self.silence = rows, labels, silence
        self.random = np.random.default_rng(seed)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        draw, rows = self.random.integers, self.rows[i]
        x = padded(rows, FRAMES, self.silence, draw(0, max(FRAMES - len(rows), 0) + 1))
        x += self.random.normal(0, 0.2)
        pitch, frame = draw(0, MELS - 4), draw(0, FRAMES - 8)
        x[:, pitch : pitch + draw(0, 6)] = 0
        x[frame : frame + draw(0, 10)] = 0
        return x.astype(np.float32), self.labels[i]


class Listener(nn.Module):
    """Log-mels (N, T, MELS) -> (N, T / 4, classes), or (N, classes) where it tells one digit."""

    def __init__(self, classes, whole, width=64):
        self.whole = whole
        self.filters = nn.Sequential(
            nn.Conv1d(MELS, width, 5, stride=2, padding="same"), nn.ReLU(), nn.Dropout(0.2),
            nn.Conv1d(width, width, 5, stride=2, padding="same"), nn.ReLU(), nn.Dropout(0.2),
        )  # fmt: skip
        self.rows = nn.TimeDistributed(nn.Sequential(nn.Linear(width, width), nn.ReLU()))
        self.memory = nn.GRU(width, width, batch_first=True, bidirectional=True)
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(2 * width, classes))

    def forward(self, x):
        states, _ = self.memory(self.rows(self.filters(x)))
        return self.head(states.mean(axis=1) if self.whole else states)


def digits(train, test, scale, args):
    """Learn which digit a recording is; returns what was measured."""
    rows, y = [scale(x) for x in features(train)], train.labels
    x_test = np.stack([padded(scale(x), FRAMES, scale.silence) for x in features(test)])
    model = Listener(10, whole=True)
    loader = DataLoader(Shaken(rows, y, scale.silence, args.seed), args.batch_size, shuffle=True)
    optimizer = optim.AdamW(model.parameters(), weight_decay=0.01)
    schedule = optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, args.epochs * len(loader))
    history = fit(model, loader, epochs=args.epochs, optimizer=optimizer, schedule=schedule)
    counts = confusion_matrix(predict(model, x_test.astype(np.float32)), test.labels)
    accuracy = counts.trace() / counts.sum()
    print(f"digits: {accuracy:.2%} of {counts.sum()} test recordings; said, heard as:\n{counts}")
    return {"accuracy": accuracy, "confusion": counts.tolist(), "loss": history["loss"]}


class Sequences:
    """Recordings of one speaker, so many at a time, one behind the other with pauses in between."""

    def __init__(self, rows, recordings, silence, spoken, random):
        self.rows, self.labels, self.silence, self.spoken = rows, recordings.labels, silence, spoken
        people = [np.flatnonzero(recordings.speakers == s) for s in np.unique(recordings.speakers)]
        orders = [random.permutation(person) for person in people]
        groups = [order[i : i + spoken] for order in orders for i in range(0, len(order), spoken)]
        self.groups = [groups[i] for i in random.permutation(len(groups))]
        self.random = random

    def batches(self, size):
        """x (N, T, MELS), target (N, spoken), steps of the output and labels that count (N,)."""
        for first in range(0, len(self.groups), size):
            groups = self.groups[first : first + size]
            targets = np.zeros((len(groups), self.spoken), np.int64)
            for row, group in zip(targets, groups):
                row[: len(group)] = self.labels[group] + 1
            sounds = [np.concatenate([self.behind(i) for i in group]) for group in groups]
            length = self.spoken * (FRAMES + PAUSE)
            x = np.stack([padded(s, length, self.silence) for s in sounds]).astype(np.float32)
            steps = np.array([-(-len(s) // 4) for s in sounds])
            yield tuple(map(minidl.tensor, (x, targets, steps, np.array(list(map(len, groups))))))

    def behind(self, i):
        """A recording and the pause behind it."""
        pause = self.random.integers(0, PAUSE + 1)
        return padded(self.rows[i], len(self.rows[i]) + pause, self.silence)


def spelled(best):
    """What the classes of the steps say: repetitions dropped first, then blanks."""
    return [int(c) for c, _ in groupby(best) if c != BLANK]


def edits(a, b):
    """How many labels must be put in, left out or changed to make b of a (Levenshtein)."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, right in enumerate(b, 1):
            before, row[j] = row[j], min(before + (left != right), row[j] + 1, row[j - 1] + 1)
    return row[-1]


def sequences(train, test, scale, args):
    """Learn which digits were said, without knowing when; returns what was measured."""
    rows, heard = ([scale(x) for x in features(part)] for part in (train, test))
    size = max(args.batch_size // 2, 1)  # they are longer than digits
    random, model = np.random.default_rng(args.seed), Listener(11, whole=False)
    # single digits first: who begins with four learns for long that saying nothing is best
    lessons = [
        Sequences(rows, train, scale.silence, 1 + SPOKEN * epoch // args.epochs, random)
        for epoch in range(args.epochs)
    ]
    total = sum(-(-len(lesson.groups) // size) for lesson in lessons)
    optimizer = optim.AdamW(model.parameters(), weight_decay=0.01)
    schedule = optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total)

    def scores(x):
        return F.log_softmax(model(x), -1).permute(1, 0, 2)  # CTC has time first, as in PyTorch

    @minidl.capture
    def learn(x, target, steps, counts):
        optimizer.zero_grad()
        loss = F.ctc_loss(scores(x), target, steps, counts, BLANK)
        loss.backward()
        optim.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        return loss

    losses = []
    for epoch, lesson in enumerate(lessons, 1):
        each = []
        for batch in lesson.batches(size):
            each.append(learn(*batch).item())
            schedule.step()
        losses.append(float(np.mean(each)))
        spoken = f"{lesson.spoken} digit{'s' * (lesson.spoken > 1)} a time"
        print(f"sequences: epoch {epoch}/{args.epochs}, {spoken}, CTC loss {losses[-1]:.4f}")
    model.eval()
    said = Sequences(heard, test, scale.silence, SPOKEN, random)
    return {"loss": losses} | compared(scores, said)


@minidl.no_grad()
def compared(scores, said):
    """What a network hears beside what was said: the best class of each step, spelled."""
    pairs = []
    for x, target, steps, counts in said.batches(32):
        best = scores(x).numpy().argmax(-1).T
        for row, n, want, count in zip(best, steps.numpy(), target.numpy(), counts.numpy()):
            pairs.append((spelled(row[:n]), want[:count].tolist()))
    for heard, want in pairs[:5]:
        print("  said", *(c - 1 for c in want), " heard", *(c - 1 for c in heard))
    total = sum(len(want) for _, want in pairs)
    wrong = sum(edits(heard, want) for heard, want in pairs) / total
    whole = sum(heard == want for heard, want in pairs) / len(pairs)
    print(f"sequences: {wrong:.2%} of {total} digits wrong, {whole:.2%} of {len(pairs)} all right")
    return {"digit_error_rate": wrong, "sequences_right": whole}


TASKS = {"digits": digits, "sequences": sequences}


def main(given=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=[*TASKS, "both"], default="both")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="few recordings, few epochs")
    parser.add_argument("--out", default="runs/spoken-digits", help="folder for result.json")
    args = parser.parse_args(given)
    train, test = fsdd("train"), fsdd("test")
    if args.quick:
        args.epochs, args.batch_size = min(args.epochs, 8), 16
        train, test = train[::6], test[::3]
    result, scale = {"seed": args.seed, "epochs": args.epochs}, Scale(features(train))
    for name, task in TASKS.items():
        if args.task in (name, "both"):
            minidl.manual_seed(args.seed)  # so each task is the same without the other
            start = time.perf_counter()
            result[name] = task(train, test, scale, args)
            result[name]["seconds"] = round(time.perf_counter() - start, 1)
    path = Path(args.out, "result.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    return result


if __name__ == "__main__":
    main()
