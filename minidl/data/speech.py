"""Free Spoken Digits: 3,000 recordings of six people who say a digit, at 8 kHz."""

import io
import os
import wave
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .catalog import FILES, UNPACKED, folders, verify
from .sets import Folder, load

SPLITS = {"train": (5, 50), "test": (0, 5), "all": (0, 50)}  # as the repository's README has it


@dataclass(frozen=True)
class Recordings:
    """Sounds of unequal lengths: audio, a list of int16 (T,); labels and speakers (N,); rate in Hz.

    `recordings[3]` is one (sound, label), the sound float32 from -1 to 1; `recordings[:100]` or
    `recordings[array]` is fewer of them. index: the number of each in its series of one speaker
    and digit. names: those of the speakers.
    """

    audio: list[np.ndarray]
    labels: np.ndarray
    speakers: np.ndarray
    index: np.ndarray
    names: tuple[str, ...]
    rate: int

    def __len__(self) -> int:
        return len(self.audio)

    def __getitem__(self, key: Any) -> Any:
        if np.ndim(key) == 0 and not isinstance(key, slice):
            return self.audio[key].astype(np.float32) / 2**15, int(self.labels[key])
        audio = [self.audio[i] for i in np.arange(len(self))[key]]
        rest = self.labels[key], self.speakers[key], self.index[key]
        return Recordings(audio, *rest, self.names, self.rate)

    def __repr__(self) -> str:
        seconds = sum(map(len, self.audio)) / self.rate
        return f"Recordings({len(self)} of {len(self.names)} speakers, {seconds:.0f} s)"


def fsdd(split: str = "train", *, root: Folder = None, download: bool = False) -> Recordings:
    """Load the Free Spoken Digit Dataset: 2,700 recordings to train on, 300 to test ("all": both).

    The official split: of each speaker's 50 recordings of a digit the first five are for tests.
    root: a folder with fsdd.npz, or the public repository, whose recordings/*.wav are read; every
    sample is verified. CC BY-SA 4.0, https://github.com/Jakobovski/free-spoken-digit-dataset
    """
    if split not in SPLITS:
        raise ValueError(f"fsdd: split is 'train', 'test' or 'all', got {split!r}")
    data = _from_wavs(root) or load("fsdd", "all", root, download)[0]
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        a = dict(file)
    first, last = SPLITS[split]
    chosen = np.flatnonzero((a["index"] >= first) & (a["index"] < last))
    return Recordings(
        np.split(a["audio"], a["offsets"][1:-1]),
        a["label"].astype(np.int64),
        a["speaker"].astype(np.int64),
        a["index"].astype(np.int64),
        tuple(a["speakers"].tolist()),
        int(a["rate"]),
    )[chosen]


def pack(wavs: Mapping[str, bytes]) -> bytes:
    """The recordings "digit_speaker_index.wav" as an .npz: what fsdd() reads."""
    names = sorted(wavs)
    sounds, rates = zip(*(read_wav(wavs[name], name) for name in names), strict=True)
    labels, speakers, index = zip(*(name[: -len(".wav")].split("_") for name in names), strict=True)
    if len(set(rates)) > 1:
        raise ValueError(f"fsdd: recordings of one rate are needed, got {sorted(set(rates))} Hz")
    people, speaker = np.unique(speakers, return_inverse=True)
    out = io.BytesIO()
    np.savez_compressed(
        out,
        audio=np.concatenate(sounds),
        offsets=np.cumsum([0, *map(len, sounds)]),
        label=np.array(labels, np.uint8),
        speaker=speaker.astype(np.uint8),
        index=np.array(index, np.uint8),
        speakers=people,
        rate=np.array(rates[0]),
    )
    return out.getvalue()


def read_wav(data: bytes, name: str = "a .wav") -> tuple[np.ndarray, int]:
    """Read a .wav of one channel of 16 bits -> its samples, int16 (T,), and their rate in Hz."""
    try:
        with wave.open(io.BytesIO(data)) as file:
            kind, frames = file.getparams(), file.readframes(file.getnframes())
    except (EOFError, wave.Error) as error:
        raise ValueError(f"{name}: not a .wav that can be read ({error})") from error
    if (kind.nchannels, kind.sampwidth) != (1, 2):
        raise ValueError(
            f"{name}: one channel of 16 bits is read, got {kind.nchannels} of "
            f"{8 * kind.sampwidth} bits"
        )
    if len(frames) != 2 * kind.nframes:
        raise ValueError(f"{name}: {kind.nframes} samples are announced, {len(frames) // 2} follow")
    return np.frombuffer(frames, "<i2").astype(np.int16), kind.framerate


def _from_wavs(root: str | os.PathLike | None) -> bytes:
    """The repository's recordings as an .npz, verified, or nothing where there are none."""
    for folder in folders("fsdd", root):
        near = [folder] if root is not None else [folder, folder.parent / UNPACKED["fsdd"]]
        for home in [place / inside for place in near for inside in ("", "recordings")]:
            wavs = {path.name: path.read_bytes() for path in Path(home).glob("[0-9]_*_*.wav")}
            if wavs:
                return verify(pack(wavs), FILES["fsdd"]["all"][0], f"{len(wavs)} .wav in {home}")
    return b""
