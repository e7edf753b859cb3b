"""Sound as arrays: WAV files, short-time spectra, log-mel features. Loaded when asked for.

Signals are (..., samples), what is made of them (..., frames, values), in the signal's precision;
whole numbers, as files hold them, are first scaled to [-1, 1). Lengths are in seconds.
"""

import math
import os
from pathlib import Path

import numpy as np

WINDOW, HOP = 0.025, 0.010  # seconds: speech hardly changes within them
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE  # what a WAV file holds, by its format tag


def read_wav(path: str | os.PathLike[str]) -> tuple[np.ndarray, int]:
    """The samples of a WAV file, float32 (samples,) or (channels, samples), and their rate.

    PCM of 8, 16, 24 or 32 bits, which is scaled to [-1, 1), or floats of 32 or 64 bits, as they
    are. ValueError for other files, and damaged ones. Source: Microsoft, "Multimedia Programming
    Interface and Data Specifications 1.0", 1991, with WAVE_FORMAT_EXTENSIBLE.
    """
    data = Path(path).read_bytes()
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise ValueError(f"read_wav: {path} is not a WAV file: it starts with {data[:12]!r}")
    chunks, start = dict[bytes, bytes](), 12
    while start + 8 <= len(data) and b"data" not in chunks:
        size = int.from_bytes(data[start + 4 : start + 8], "little")
        chunks[data[start : start + 4]] = body = data[start + 8 : start + 8 + size]
        if len(body) < size:
            raise ValueError(f"read_wav: {path} ends {size - len(body)} bytes too early")
        start += 8 + size + size % 2
    head, body = chunks.get(b"fmt ", b""), chunks.get(b"data")
    if len(head) < 16 or body is None:
        raise ValueError(f"read_wav: {path} has no format or no samples")
    tag, channels, bits = (int.from_bytes(head[i : i + 2], "little") for i in (0, 2, 14))
    rate = int.from_bytes(head[4:8], "little")
    tag = int.from_bytes(head[24:26], "little") if tag == _EXTENSIBLE else tag
    if not channels or not rate or len(body) % max(channels * bits // 8, 1):
        raise ValueError(f"read_wav: {path} says {channels} channels of {bits} bits at {rate} Hz")
    samples = _decoded(body, tag, bits, path).reshape(-1, channels)
    return (samples[:, 0] if channels == 1 else np.ascontiguousarray(samples.T)), rate


def _decoded(body: bytes, tag: int, bits: int, path: str | os.PathLike[str]) -> np.ndarray:
    """The numbers of a WAV file's data as float32."""
    if tag == _FLOAT and bits in (32, 64):
        return np.frombuffer(body, f"<f{bits // 8}").astype(np.float32)
    if tag != _PCM or bits not in (8, 16, 24, 32):
        raise ValueError(
            f"read_wav: {path} has format {tag} of {bits} bits; PCM of 8, 16, 24 or 32 and floats "
            "of 32 or 64 bits can be read"
        )
    if bits == 8:
        return (np.frombuffer(body, np.uint8).astype(np.float32) - 128) / 128
    if bits == 24:  # as the upper bytes of 32
        wide = np.zeros((len(body) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(body, np.uint8).reshape(-1, 3)
        return scaled(wide.view("<i4")[:, 0])
    return scaled(np.frombuffer(body, f"<i{bits // 8}"))


def scaled(x: np.ndarray) -> np.ndarray:
    """x itself if it is floats; signed whole numbers as float32 in [-1, 1)."""
    x = np.asarray(x)
    if x.dtype in (np.float32, np.float64):
        return x
    if x.dtype.kind != "i":
        raise TypeError(f"audio: a signal is floats or signed whole numbers, not {x.dtype}")
    return (x / 2.0 ** (8 * x.dtype.itemsize - 1)).astype(np.float32)


def frame(
    x: np.ndarray, sample_rate: int = 44100, *, window: float = WINDOW, hop: float = HOP
) -> np.ndarray:
    """Cut x (..., samples) into frames that overlap -> (..., frames, window), a read-only view.

    A frame begins every `hop` seconds and is `window` seconds long. There are as many as fit whole:
    1 + (samples - window) // hop; a signal shorter than one is filled up with zeros.
    """
    x, size, step = _samples("frame", x, sample_rate, window, hop)
    if x.shape[-1] < size:
        x = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, size - x.shape[-1])])
    return np.lib.stride_tricks.sliding_window_view(x, size, axis=-1)[..., ::step, :]


def _samples(name: str, x: np.ndarray, sample_rate: int, window: float, hop: float) -> tuple:
    """x as floats, and the window and the hop in samples."""
    x, size, step = scaled(x), round(sample_rate * window), round(sample_rate * hop)
    if not x.ndim:
        raise ValueError(f"{name}: x is a number, but a signal is (..., samples)")
    if size < 2 or step < 1:
        raise ValueError(
            f"{name}: at {sample_rate} Hz a window of {window} s has {size} samples and a hop of "
            f"{hop} s has {step}; they need 2 and 1"
        )
    return x, size, step


def hann(size: int) -> np.ndarray:
    """The periodic Hann window, float64 (size,): 1/2 - 1/2 cos(2 pi n / size)."""
    return 0.5 - 0.5 * np.cos(2 * math.pi / size * np.arange(size))


def stft(
    x: np.ndarray,
    sample_rate: int = 44100,
    *,
    window: float = WINDOW,
    hop: float = HOP,
    bins: int | None = None,
) -> np.ndarray:
    """The spectrum of each frame of x (..., samples) -> complex (..., frames, bins).

    y[f, k] = sum over n of hann[n] frame[f, n] exp(-2 pi i k n / size). The frames are those of
    `frame`; bin k is the frequency k sample_rate / size, where size = 2 (bins - 1), the least power
    of two that is no shorter than the window unless bins says more. Nothing is scaled.
    """
    frames = frame(x, sample_rate, window=window, hop=hop)
    length = frames.shape[-1]
    size = 1 << (length - 1).bit_length() if bins is None else 2 * (bins - 1)
    if size < length:
        raise ValueError(
            f"stft: {bins} bins are too few for a window of {length} samples, which needs at least "
            f"{length // 2 + 1 + length % 2}"
        )
    return np.fft.rfft(frames * hann(length).astype(frames.dtype), size)


def mel(frequency: np.ndarray | float) -> np.ndarray | float:
    """The pitch of a frequency in Hz, in mel: 2595 log10(1 + f / 700), as in HTK."""
    return 2595 * np.log10(1 + np.asarray(frequency) / 700)


def mel_filters(
    bins: int, sample_rate: int, mels: int = 40, low: float = 0.0, high: float | None = None
) -> np.ndarray:
    """Triangles over the bins of a spectrum, evenly spaced in mel -> float64 (bins, mels).

    Filter m rises from 0 at edge m to 1 at edge m + 1 and falls to 0 at edge m + 2, of mels + 2
    edges from low to high (unset: half the sample rate) in Hz. Young et al., "The HTK Book", 5.6.
    """
    high = sample_rate / 2 if high is None else high
    if not 0 <= low < high <= sample_rate / 2:
        raise ValueError(
            f"mel_filters: low {low} and high {high} Hz must satisfy 0 <= low < high <= "
            f"{sample_rate / 2:g}, half the sample rate"
        )
    edges = 700 * (10 ** (np.linspace(mel(low), mel(high), mels + 2) / 2595) - 1)
    frequency = np.arange(bins)[:, None] * (sample_rate / 2 / (bins - 1))
    rise = (frequency - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - frequency) / (edges[2:] - edges[1:-1])
    filters = np.maximum(0, np.minimum(rise, fall))
    if not filters.any(axis=0).all():
        raise ValueError(
            f"mel_filters: {bins} bins are too coarse for {mels} filters, some of which no bin "
            "falls into; take fewer filters, or more bins or a longer window"
        )
    return filters


def log_mel(
    x: np.ndarray,
    sample_rate: int = 44100,
    *,
    mels: int = 40,
    window: float = WINDOW,
    hop: float = HOP,
    low: float = 0.0,
    high: float | None = None,
    floor: float = 1e-10,
) -> np.ndarray:
    """How loud each pitch is over time: x (..., samples) -> (..., frames, mels).

    log(max(floor, energy of the spectrum through mel_filters)), the usual input of a network that
    hears. Each is one row of what nn.Conv1d, nn.GRU or nn.TimeDistributed take: (N, frames, mels).
    """
    x = scaled(x)
    # in float64: what float32 rounds off a loud pitch is as loud as a quiet one
    spectrum = stft(x.astype(np.float64), sample_rate, window=window, hop=hop)
    energy = spectrum.real**2 + spectrum.imag**2
    filters = mel_filters(spectrum.shape[-1], sample_rate, mels, low, high)
    return np.log(np.maximum(energy @ filters, floor)).astype(x.dtype)
