"""The small backbones' own layers are timm's, to the byte; timm itself is not loaded for them."""

import subprocess
import sys

import pytest
import timm
import torch
from timm.models import vision_transformer

from mafr.features.lite import Lite
from mafr.features.pointmae import Block
from mafr.features.rgb import EfficientNetLite, lite_network
from mafr.features.transformer import Attention, Mlp


@pytest.mark.parametrize("number", [0, 2])
def test_efficientnet_lite_is_timms_to_the_byte(number):
    theirs, ours = timm.create_model(f"tf_efficientnet_lite{number}", pretrained=False), Lite(number)
    own = ours.state_dict()
    assert [(k, v.shape) for k, v in theirs.state_dict().items()] == [(k, v.shape) for k, v in own.items()]
    assert ours.default_cfg == {name: theirs.default_cfg[name] for name in ours.default_cfg}
    theirs.load_state_dict(lite_network(number).state_dict())
    trained = lite_network(number)
    torch.manual_seed(1)
    for side in (224, 112, 50):  # the last has odd sizes on the way
        images = torch.rand(2, 3, side, side)
        with torch.no_grad():
            assert torch.equal(theirs.eval()(images), trained(images)), side
    images = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(EfficientNetLite(theirs)(images), EfficientNetLite(trained)(images))


def test_attention_and_mlp_are_timms_to_the_byte():
    x = torch.randn(2, 65, 48)
    for build, same in ((lambda m: m.Attention(48, 4), Attention(48, 4)), (lambda m: m.Mlp(48, 192), Mlp(48, 192))):
        torch.manual_seed(3)
        theirs = build(vision_transformer).eval()
        torch.manual_seed(3)
        ours = type(same)(48, 4 if isinstance(same, Attention) else 192).eval()
        assert {k: v.tolist() for k, v in ours.state_dict().items()} == {
            k: v.tolist() for k, v in theirs.state_dict().items()
        }  # drawn in the same order
        with torch.no_grad():
            assert torch.equal(theirs(x), ours(x))
        theirs(x.requires_grad_()).square().sum().backward()
        ours(x).square().sum().backward()
        for a, b in zip(theirs.parameters(), ours.parameters(), strict=True):
            assert torch.equal(a.grad, b.grad)
    assert set(dict(Block(48, 4).named_parameters())) == {
        "norm1.weight", "norm1.bias", "attn.qkv.weight", "attn.proj.weight", "attn.proj.bias", "norm2.weight",
        "norm2.bias", "mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight", "mlp.fc2.bias",
    }  # fmt: skip


def test_the_small_backbones_load_neither_timm_nor_torchvision():
    show = "import sys; from mafr.config import Config; from mafr.features.extract import FeatureExtractor; "
    show += "FeatureExtractor.from_config(Config.preset('smoke')); print(*(m for m in names if m in sys.modules))"
    code = f"names = 'timm', 'torchvision', 'sympy', 'sklearn', 'matplotlib'; {show}"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == []
