"""Sound as arrays: WAV files, frames, spectra against SciPy and the definition, log-mel."""

import struct
import wave

import numpy as np
import pytest

from minidl import data
from minidl.data import audio


def chirp():
    n = np.arange(800)
    return np.sin(2 * np.pi * (0.02 * n + 0.0002 * n * n))


# What SciPy 1.17.1 gives: scipy.signal.stft(chirp(), 8000, window="hann", nperseg=200,
# noverlap=120, nfft=256, boundary=None, padded=False)[2].T times the window's sum, 100.
SCIPY = {
    (0, 0): -0.14081556284588387,
    (0, 5): 0.8238424987425053 + 0.7849794099861276j,
    (3, 30): -1.168780917940901 + 0.8405258036421186j,
    (7, 64): 1.8537607183614702 - 2.0139328529173466j,
    (7, 80): 5.342211103578718 - 0.688517696633369j,
    (7, 128): 0.00017240760361436624,
}


def bound(x, dtype):
    """4 eps log2(size) times the norm of each windowed frame (frames, 1): Higham 2002, 24.1.

    The rounding of the samples to float32 is in it.
    """
    windowed = audio.frame(x, 8000) * audio.hann(200)
    return 4 * np.finfo(dtype).eps * 8 * np.linalg.norm(windowed, axis=-1, keepdims=True)


@pytest.mark.parametrize(("dtype", "result"), [("float32", "complex64"), ("float64", "complex128")])
def test_the_spectrum_is_that_of_scipy(dtype, result):
    y, limit = audio.stft(chirp().astype(dtype), 8000), bound(chirp(), dtype)
    assert y.shape == (8, 129) and y.dtype == result
    for (frame, k), want in SCIPY.items():
        assert abs(y[frame, k] - want) <= limit[frame, 0]


@pytest.mark.parametrize("bins", [None, 101, 150])
def test_the_spectrum_is_its_definition(bins):
    x = np.random.default_rng(0).normal(size=(2, 3, 500))
    y = audio.stft(x, 8000, bins=bins)
    size = 256 if bins is None else 2 * (bins - 1)
    n, k = np.arange(200), np.arange(size // 2 + 1)
    waves = np.exp(-2j * np.pi * np.outer(n, k) / size)
    want = (audio.frame(x, 8000) * (0.5 - 0.5 * np.cos(2 * np.pi * n / 200))) @ waves
    assert y.shape == want.shape == (2, 3, 4, len(k))
    np.testing.assert_allclose(y, want, atol=1e-12)


def test_frames_overlap_and_are_whole():
    x = np.arange(10.0)
    frames = audio.frame(x, 10, window=0.4, hop=0.2)
    np.testing.assert_array_equal(frames, [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7], [6, 7, 8, 9]])
    assert np.shares_memory(frames, x) and not frames.flags.writeable
    assert audio.frame(x[:9], 10, window=0.4, hop=0.2).shape == (3, 4)
    short = audio.frame(np.ones((2, 3)), 10, window=0.5, hop=0.2)
    np.testing.assert_array_equal(short, [[[1, 1, 1, 0, 0]]] * 2)


def test_filters_are_triangles_evenly_spaced_in_mel():
    filters = audio.mel_filters(129, 8000, 26, low=100, high=3800)
    assert filters.shape == (129, 26) and filters.min() == 0 and 0.5 < filters.max() <= 1
    frequency = np.arange(129) * 4000 / 128
    centres = 700 * (10 ** (np.linspace(audio.mel(100), audio.mel(3800), 28) / 2595) - 1)
    between = (frequency >= centres[1]) & (frequency <= centres[-2])
    np.testing.assert_allclose(filters[between].sum(1), 1)  # one falls as the next one rises
    assert not filters[(frequency <= 100) | (frequency >= 3800)].any()
    assert audio.mel(1000) == pytest.approx(999.9855)  # 1000 Hz are 1000 mel


def test_log_mel_tells_the_pitch_of_a_tone():
    t = np.arange(8000) / 8000
    tones = np.stack([np.sin(2 * np.pi * f * t) for f in (300, 1000, 3000)]).astype("float32")
    y = audio.log_mel(tones, 8000, mels=30)
    assert y.shape == (3, 98, 30) and y.dtype == np.float32
    centres = np.linspace(0, audio.mel(4000), 32)[1:-1]
    nearest = [np.abs(centres - audio.mel(f)).argmin() for f in (300, 1000, 3000)]
    np.testing.assert_array_equal(y.argmax(-1), np.repeat(nearest, 98).reshape(3, 98))
    assert (audio.log_mel(np.zeros(400), 8000) == np.log(1e-10)).all()
    np.testing.assert_allclose(audio.log_mel(tones * 10, 8000, mels=30) - y, np.log(100), rtol=1e-3)


def test_whole_numbers_are_scaled():
    assert data.audio is audio
    x = np.array([-32768, 0, 16384], np.int16)
    np.testing.assert_array_equal(audio.scaled(x), np.array([-1, 0, 0.5], np.float32))
    np.testing.assert_array_equal(audio.frame(x, 3, window=1, hop=1), [[-1, 0, 0.5]])


def wav(tag, channels, bits, body, extra=b"", before=b"", rate=8000):
    """The bytes of a WAV file."""
    block = channels * bits // 8
    head = struct.pack("<HHIIHH", tag, channels, rate, rate * block, block, bits) + extra
    chunks = b"fmt " + struct.pack("<I", len(head)) + head + before
    chunks += b"data" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


WHOLE = np.array([-(2**31), -(2**24), 0, 2**30], np.int64)
PCM = {
    8: ((WHOLE >> 24) + 128).astype(np.uint8).tobytes(),
    16: (WHOLE >> 16).astype("<i2").tobytes(),
    24: b"".join(int(n >> 8).to_bytes(3, "little", signed=True) for n in WHOLE),
    32: WHOLE.astype("<i4").tobytes(),
}


def read(tmp_path, data):
    path = tmp_path / "sound.wav"
    path.write_bytes(data)
    return audio.read_wav(path)


@pytest.mark.parametrize("bits", PCM)
def test_wav_files_of_any_width_are_read(tmp_path, bits):
    want = [-1, -(2**-7), 0, 0.5]
    x, rate = read(tmp_path, wav(1, 1, bits, PCM[bits]))
    assert rate == 8000 and x.dtype == np.float32
    np.testing.assert_array_equal(x, want)
    both, _ = read(tmp_path, wav(1, 2, bits, PCM[bits], before=b"LIST\x03\0\0\0abc\0"))
    np.testing.assert_array_equal(both, [want[::2], want[1::2]])
    extra = struct.pack("<HHIH", 22, bits, 1, 1) + bytes(14)
    np.testing.assert_array_equal(read(tmp_path, wav(0xFFFE, 1, bits, PCM[bits], extra))[0], want)


def test_wav_files_of_floats_and_those_python_writes_are_read(tmp_path):
    for bits in (32, 64):
        body = np.array([-2, 0.25], f"<f{bits // 8}").tobytes()
        np.testing.assert_array_equal(read(tmp_path, wav(3, 1, bits, body))[0], [-2, 0.25])
    with wave.open(str(tmp_path / "written.wav"), "wb") as file:
        file.setparams((1, 2, 44100, 0, "NONE", ""))
        file.writeframes(np.array([1, -1], "<i2").tobytes())
    x, rate = audio.read_wav(tmp_path / "written.wav")
    assert rate == 44100 and x.tolist() == [2**-15, -(2**-15)]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"RIFX\0\0\0\0WAVE", "is not a WAV file"),
        (b"", "is not a WAV file"),
        (wav(1, 1, 16, bytes(8))[:-3], "ends 3 bytes too early"),
        (wav(1, 1, 16, bytes(8))[:36], "no format or no samples"),
        (wav(1, 1, 16, bytes(7)), "says 1 channels of 16 bits"),
        (wav(1, 0, 16, bytes(8)), "says 0 channels"),
        (wav(1, 1, 12, bytes(6)), "has format 1 of 12 bits"),
        (wav(7, 1, 8, bytes(8)), "has format 7 of 8 bits"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused(tmp_path, data, words):
    with pytest.raises(ValueError, match=words):
        read(tmp_path, data)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: audio.frame(np.float32(1), 8000), ValueError, "frame: x is a number"),
        (lambda: audio.frame(np.zeros(9), 8000, hop=1e-5), ValueError, "a hop of 1e-05 s has 0"),
        (lambda: audio.frame(np.zeros(9, np.uint8), 8000), TypeError, "not uint8"),
        (lambda: audio.stft(np.zeros(900), 8000, bins=100), ValueError, "needs at least 101"),
        (lambda: audio.mel_filters(65, 8000, 80), ValueError, "65 bins are too coarse for 80"),
        (lambda: audio.mel_filters(129, 8000, high=5000), ValueError, "half the sample rate"),
    ],
)
def test_audio_says_what_is_wrong(call, error, words):
    with pytest.raises(error, match=words):
        call()
