"""What torchvision and timm say about the named architectures.

    python3 crates/proxygrad/tests/data/architectures/make.py       # needs torch, torchvision, timm, safetensors

Writes `torch.tensors.gz`: names and shapes of the floating-point tensors of the published variants, each below a line
with its library and name, and `torch.safetensors`: small variants of the same families, as values of all their modules.
Their weights and image are computed from a linear congruential generator, so that only values are stored.
"""

import gzip
import math
from pathlib import Path

import numpy as np
import safetensors.torch
import timm
import torch
import torchvision
from timm.models.convnext import ConvNeXt
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from timm.models.vgg import VGG
from timm.models.vision_transformer import VisionTransformer

HERE = Path(__file__).parent
# Values of each module that are kept, evenly spread.
KEPT = 40

TORCHVISION = """resnet18 resnet34 resnet50 resnet101 resnet152 resnext50_32x4d resnext101_32x8d resnext101_64x4d
wide_resnet50_2 wide_resnet101_2 vgg11 vgg11_bn vgg13 vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn densenet121 densenet161
densenet169 densenet201 convnext_tiny convnext_small convnext_base convnext_large vit_b_16 vit_b_32 vit_l_16 vit_l_32
vit_h_14""".split()
TIMM = """resnet18 resnet50 resnext101_32x4d wide_resnet50_2 vgg11 vgg13_bn vgg16 vgg19_bn densenet121 densenet201
convnext_tiny convnext_small convnext_base convnext_large vit_tiny_patch16_224 vit_tiny_patch16_384
vit_small_patch16_224 vit_small_patch16_384 vit_small_patch32_224 vit_base_patch16_224 vit_base_patch16_384 vit_base_patch32_224
vit_large_patch16_224 vit_large_patch16_384 vit_large_patch32_224 vit_huge_patch14_224 deit_tiny_patch16_224
deit_small_patch16_224 deit_base_patch16_224 deit_base_patch16_384 vit_small_patch14_dinov2 vit_base_patch14_dinov2
vit_large_patch14_dinov2 vit_small_patch14_reg4_dinov2 vit_base_patch14_reg4_dinov2
vit_large_patch14_reg4_dinov2""".split()


def lists():
    lines = []
    for library, names in [("torchvision", TORCHVISION), ("timm", TIMM)]:
        for name in names:
            with torch.device("meta"):
                model = torchvision.models.get_model(name) if library == "torchvision" else timm.create_model(name)
            lines.append(f"# {library} {name}")
            for tensor, value in model.state_dict().items():
                if value.is_floating_point():
                    lines.append(" ".join([tensor, *map(str, value.shape)]))
    packed = gzip.compress(("\n".join(lines) + "\n").encode(), mtime=0)
    (HERE / "torch.tensors.gz").write_bytes(packed)


class Noise:
    """Numbers in [0, 1)."""

    def __init__(self):
        self.state = 1

    def values(self, count):
        found = np.empty(count)
        for i in range(count):
            self.state = (self.state * 1664525 + 1013904223) % 2**32
            found[i] = (self.state >> 8) / 2**24
        return found


def value(name, shape, noise):
    u = noise.values(math.prod(shape))
    if len(shape) > 1 and name.endswith("weight"):
        u = (2 * u - 1) * math.sqrt(3 / math.prod(shape[1:]))
    elif name.endswith(("weight", "running_var", "gamma", "layer_scale")):
        u = 0.5 + u
    else:
        u = 0.4 * u - 0.2
    return torch.from_numpy(u.astype(np.float32).reshape(shape))


def vgg_of_torchvision():
    features = torchvision.models.vgg.make_layers([2, "M", 3, 3, "M", 4, "M", 4, "M", 5, "M"], batch_norm=True)
    model = torchvision.models.VGG(features, num_classes=5, init_weights=False)
    model.classifier[0] = torch.nn.Linear(5 * 49, 6)
    model.classifier[3] = torch.nn.Linear(6, 6)
    model.classifier[6] = torch.nn.Linear(6, 5)
    return model


def vgg_of_timm():
    model = VGG([2, "M", 3, 3, "M", 4, "M", 4, "M", 5, "M"], num_classes=5)
    model.pre_logits.fc1 = torch.nn.Conv2d(5, 6, 7)
    model.pre_logits.fc2 = torch.nn.Conv2d(6, 6, 1)
    model.head.fc = torch.nn.Linear(6, 5)
    return model


def convnext_of_torchvision():
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt as TorchvisionConvNeXt

    stages = [CNBlockConfig(5, 6, 1), CNBlockConfig(6, 7, 1), CNBlockConfig(7, 10, 2), CNBlockConfig(10, None, 1)]
    return TorchvisionConvNeXt(stages, num_classes=5)


def vit(**settings):
    return VisionTransformer(img_size=32, patch_size=8, embed_dim=12, depth=2, num_heads=3, **settings)


# Modules that compute nothing at inference, or only change the shape.
IDLE = {"Dropout", "Dropout2d", "DropPath", "Flatten", "Identity", "PatchDropout", "Permute", "StochasticDepth"}

CASES = {
    "resnet/basic": (lambda: ResNet(BasicBlock, (1, 2, 1, 1), 5, stem_width=4, channels=(4, 6, 8, 10)), 32),
    "resnet/bottleneck": (
        lambda: ResNet(
            Bottleneck, (1, 2, 1, 1), 5, stem_width=8, channels=(8, 16, 16, 32), cardinality=2, base_width=32
        ),
        32,
    ),
    "vgg/torchvision": (vgg_of_torchvision, 224),
    "vgg/timm": (vgg_of_timm, 224),
    "densenet": (lambda: torchvision.models.DenseNet(3, (2, 1, 2, 1), 6, num_classes=5), 32),
    "convnext/torchvision": (convnext_of_torchvision, 64),
    "convnext/timm": (lambda: ConvNeXt(depths=(1, 1, 2, 1), dims=(5, 6, 7, 10), num_classes=5), 64),
    "vit/torchvision": (lambda: torchvision.models.VisionTransformer(32, 8, 2, 3, 12, 48, num_classes=5), 32),
    "vit/timm": (lambda: vit(num_classes=5), 32),
    "vit/dino": (lambda: vit(num_classes=0, init_values=1e-5), 32),
    "vit/registers": (lambda: vit(num_classes=0, init_values=1e-5, reg_tokens=4, no_embed_class=True), 32),
}


def channels_first(case, module, output):
    if output.dim() == 4 and case.startswith("convnext") and output.shape[-1] != output.shape[-2]:
        return output.permute(0, 3, 1, 2)
    return output


def run(case, model, side):
    noise = Noise()
    model.eval()
    weights = {name: tensor for name, tensor in sorted(model.state_dict().items()) if tensor.is_floating_point()}
    state = {name: value(name, tensor.shape, noise) for name, tensor in weights.items()}
    model.load_state_dict(state, strict=False)
    image = torch.from_numpy(noise.values(3 * side * side).astype(np.float32).reshape(1, 3, side, side))
    found = {f"{case}:tensors": torch.tensor(list("\n".join(
        " ".join([name, *map(str, tensor.shape)]) for name, tensor in weights.items()).encode()), dtype=torch.uint8)}

    def keep(name):
        def hook(_module, _inputs, output):
            output = output[0] if isinstance(output, tuple) else output
            flat = channels_first(case, name, output.detach())[0].reshape(-1)
            found[f"{case}:{name}"] = flat[:: max(1, flat.numel() // KEPT)].clone()

        return hook

    for name, module in model.named_modules():
        if name and type(module).__name__ not in IDLE and not name.endswith("global_pool.pool"):
            module.register_forward_hook(keep(name))
    with torch.no_grad():
        found[f"{case}:"] = model(image)[0].clone()
    return found


def main():
    lists()
    tensors = {}
    for case, (make, side) in CASES.items():
        tensors |= run(case, make(), side)
    safetensors.torch.save_file(tensors, HERE / "torch.safetensors")


main()
