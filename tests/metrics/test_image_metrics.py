"""MSE, PSNR and SSIM, against scikit-image."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from expost.errors import DataError, UsageError
from expost.metrics.image import mse, psnr, ssim


def images(channels, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(3, channels, *size, generator=generator)
    y = (x + 0.2 * torch.randn(x.shape, generator=generator)).clamp(0, 1)
    return x, y


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(32, 32), (11, 17)])
def test_scores_equal_scikit_image(channels, size):
    x, y = images(channels, size)
    for i in range(len(x)):
        a, b = x[i].double().numpy(), y[i].double().numpy()
        assert mse(x, y)[i].item() == pytest.approx(mean_squared_error(a, b), rel=1e-9)
        assert psnr(x, y)[i].item() == pytest.approx(peak_signal_noise_ratio(a, b, data_range=1), rel=1e-9)
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
        per_channel = [structural_similarity(a[c], b[c], **options) for c in range(channels)]
        assert ssim(x, y)[i].item() == pytest.approx(np.mean(per_channel), abs=1e-9)


def test_identical_images_have_the_best_scores():
    x, _ = images(3, (16, 16))
    assert mse(x, x).abs().max() == 0
    assert ssim(x, x).min().item() == pytest.approx(1)
    assert psnr(x, x).tolist() == pytest.approx([10 * math.log10(12 * 255**2)] * 3)
    assert psnr(x, x)[0].item() == pytest.approx(58.92, abs=0.01)
    assert math.isfinite(psnr(x, x).mean())


def test_scores_do_not_depend_on_the_batch():
    x, y = images(1, (20, 20))
    for score in (mse, psnr, ssim):
        alone = torch.cat([score(x[i : i + 1], y[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(score(x, y), alone)


def test_what_cannot_be_compared_is_refused():
    x, y = images(1, (10, 10))
    with pytest.raises(UsageError, match="at least 11 pixels"):
        ssim(x, y)
    with pytest.raises(UsageError, match="two equal shapes"):
        mse(x, y[:2])
    with pytest.raises(DataError, match="NaN"):
        psnr(x, y * math.nan)
