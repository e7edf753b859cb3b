"""What the documents say of speech and sound, as it works here; a test for each row."""

import runpy
import wave
from pathlib import Path

import numpy as np
import pytest

import minidl
from minidl import Tensor, data, nn, plot
from minidl.data import audio
from minidl.nn import functional as F

EXAMPLE = Path(__file__).parents[2] / "examples" / "spoken_digits.py"


def test_row_09_features_network_and_both_losses():
    """S0: speech recognition, which it only names."""
    minidl.manual_seed(0)
    sound = np.sin(np.arange(2 * 8000).reshape(2, 8000) / 5).astype(np.float32)
    x = Tensor(audio.log_mel(sound, sample_rate=8000))
    assert x.shape == (2, 98, 40)
    rows = nn.Sequential(nn.Conv1d(40, 16, 5, stride=2), nn.ReLU())(x)
    states, last = nn.GRU(16, 8, batch_first=True)(nn.TimeDistributed(nn.Linear(16, 16))(rows))
    assert F.cross_entropy(nn.Linear(8, 10)(last[0]), minidl.tensor([3, 7])).item() > 0
    scores = F.log_softmax(nn.Linear(8, 11)(states), -1).permute(1, 0, 2)
    assert nn.CTCLoss()(scores, [[4, 8], [1, 1]], [47, 47], [2, 2]).item() > 0
    # the loss is -log of the sum over all paths: a-, -a and aa spell "a" in two steps
    p = np.log([[[0.5, 0.5]], [[0.25, 0.75]]])
    loss = F.ctc_loss(Tensor(p), [[1]], [2], [1]).item()
    assert loss == pytest.approx(-np.log(0.5 * 0.25 + 0.5 * 0.75 + 0.5 * 0.75))


@pytest.mark.download
@pytest.mark.parametrize(("task", "measured"), [("digits", "accuracy"), ("sequences", "loss")])
def test_row_09_real_digits_are_learned(tmp_path, task, measured):
    main = runpy.run_path(str(EXAMPLE))["main"]
    result = main(["--task", task, "--quick", "--out", str(tmp_path)])[task][measured]
    assert (tmp_path / "result.json").exists()
    if task == "digits":
        assert result > 0.4  # of ten digits, after a few looks at a twelfth of the recordings
    else:
        assert result[-1] < 0.8 * result[0]


def test_row_23_tensors_of_images_and_of_sound(tmp_path):
    """S1: images, sound and text become tensors."""
    with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
        file.setparams((1, 2, 44100, 0, "NONE", ""))
        file.writeframes((10000 * np.sin(np.arange(44100) / 10)).astype("<i2").tobytes())
    sound, rate = data.read_wav(tmp_path / "sound.wav")
    assert Tensor(sound).shape == (44100,) and rate == 44100
    assert Tensor(audio.log_mel(sound, rate)).shape == (98, 40)
    (tmp_path / "image.png").write_bytes(plot.png(plot.confusion(np.eye(3))))
    pixels = Tensor(plot.read_image(tmp_path / "image.png"))
    assert pixels.shape == (330, 330, 4)
    assert nn.Conv2d(4, 8, 3)(pixels.reshape(1, 330, 330, 4)).shape == (1, 328, 328, 8)


def test_row_26_time_distributed_takes_a_layer_and_audio_makes_the_frames():
    """S1: TimeDistributed(audio_data, sample_rate=44100), data in the place of a layer."""
    audio_data = np.sin(np.arange(3 * 44100).reshape(3, 44100) / 50).astype(np.float32)
    with pytest.raises(TypeError) as wrong:
        nn.TimeDistributed(audio_data, sample_rate=44100)
    for words in ("takes a layer", "sample_rate=44100", "TimeDistributed(nn.Linear(40, 10))"):
        assert words in str(wrong.value)
    x = Tensor(data.audio.log_mel(audio_data, sample_rate=44100))  # as the error says
    assert x.shape == (3, 98, 40)
    layer = nn.Linear(40, 10)
    y = nn.TimeDistributed(layer)(x).detach().numpy()
    for t in range(98):
        np.testing.assert_allclose(y[:, t], layer(x[:, t]).detach(), rtol=1e-5, atol=1e-5)
    assert audio.frame(audio_data, sample_rate=44100).shape == (3, 98, 1102)
    assert audio.stft(audio_data, sample_rate=44100).shape == (3, 98, 1025)
