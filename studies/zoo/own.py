"""Networks as people write them themselves: transposed convolutions, skip connections, local response normalization."""

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class UNet(nn.Module):
    """U-Net, upsampled by transposed convolutions or by interpolation."""

    image_size = (3, 128, 128)

    def __init__(self, transposed: bool = True, width: int = 16, levels: int = 4) -> None:
        super().__init__()
        widths = [width << level for level in range(levels)]
        self.down = nn.ModuleList(
            nn.Sequential(block(inputs, outputs), block(outputs, outputs))
            for inputs, outputs in zip([3, *widths], widths)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(outer, inner, 2, 2)
            if transposed
            else nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False), nn.Conv2d(outer, inner, 1))
            for outer, inner in zip(widths[:0:-1], widths[-2::-1])
        )
        self.merge = nn.ModuleList(block(2 * inner, inner) for inner in widths[-2::-1])
        self.head = nn.Conv2d(width, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for level, down in enumerate(self.down):
            x = down(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        for up, merge, skip in zip(self.up, self.merge, skips[-2::-1]):
            x = merge(torch.cat([skip, up(x)], 1))
        return self.head(x)


class AlexNet(nn.Module):
    """AlexNet as published in 2012, with local response normalization and groups, and a narrower classifier."""

    image_size = (3, 227, 227)

    def __init__(self) -> None:
        super().__init__()
        normalized = lambda: nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0)  # noqa: E731
        self.features = nn.Sequential(
            nn.Conv2d(3, 96, 11, 4), nn.ReLU(), normalized(), nn.MaxPool2d(3, 2),
            nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU(), normalized(), nn.MaxPool2d(3, 2),
            nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Dropout(), nn.Linear(9216, 512), nn.ReLU(), nn.Dropout(), nn.Linear(512, 1000)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


class Vgg(nn.Module):
    """VGG-11 with batch normalization and a narrower classifier."""

    image_size = (3, 224, 224)

    def __init__(self) -> None:
        super().__init__()
        self.features = torchvision.models.vgg11_bn(weights=None).features
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(25088, 256), nn.ReLU(True), nn.Linear(256, 1000))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


class ViT(nn.Module):
    """A vision transformer from `nn.TransformerEncoder`, with a class token."""

    image_size = (3, 64, 64)

    def __init__(self, width: int = 64, patch: int = 8) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.class_token = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, (64 // patch) ** 2 + 1, width))
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        return self.head(self.norm(self.encoder(x))[:, 0])


class Autoencoder(nn.Module):
    """Convolutions to a code, transposed convolutions back to an image."""

    image_size = (3, 64, 64)

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(block(3, 16, 2), block(16, 32, 2), block(32, 64, 2), nn.Flatten(), nn.Linear(4096, 128))
        self.widen = nn.Linear(128, 4096)
        self.decoder = nn.Sequential(
            nn.Unflatten(1, (64, 8, 8)),
            nn.ConvTranspose2d(64, 32, 3, 2, 1, output_padding=1), nn.BatchNorm2d(32), nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(32, 16, 4, 2, 1, groups=2), nn.InstanceNorm2d(16, affine=True), nn.ELU(),
            nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.widen(self.encoder(x)))


class DcganDecoder(nn.Module):
    """A discriminator with leaky ReLUs in front of a generator of DCGAN."""

    image_size = (3, 64, 64)

    def __init__(self) -> None:
        super().__init__()
        self.discriminator = nn.Sequential(
            nn.Conv2d(3, 16, 4, 2, 1), nn.LeakyReLU(0.2),
            nn.Conv2d(16, 32, 4, 2, 1, bias=False), nn.BatchNorm2d(32), nn.LeakyReLU(0.2),
            nn.Conv2d(32, 64, 4, 2, 1, bias=False), nn.BatchNorm2d(64), nn.LeakyReLU(0.2),
            nn.Conv2d(64, 100, 8),
        )  # fmt: skip
        self.generator = nn.Sequential(
            nn.ConvTranspose2d(100, 64, 4, 1, 0, bias=False), nn.BatchNorm2d(64), nn.ReLU(True),
            nn.ConvTranspose2d(64, 32, 4, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(True),
            nn.ConvTranspose2d(32, 3, 4, 2, 1, bias=False), nn.Tanh(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.generator(self.discriminator(x))


class PixelShuffle(nn.Module):
    """Superresolution: PReLUs, a long skip connection, and channels rearranged to pixels."""

    image_size = (3, 48, 48)

    def __init__(self) -> None:
        super().__init__()
        self.reduce = nn.PixelUnshuffle(2)
        self.head = nn.Sequential(nn.Conv2d(12, 32, 3, padding=1), nn.PReLU(32))
        self.body = nn.Sequential(*(nn.Sequential(block(32, 32), nn.PReLU()) for _ in range(3)))
        self.tail = nn.Sequential(nn.Conv2d(32, 48, 3, padding=1), nn.PixelShuffle(4), nn.Conv2d(3, 3, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.reduce(x))
        return self.tail(x + self.body(x)).clamp(0, 1)


class FeaturePyramid(nn.Module):
    """A ResNet with a feature pyramid and heads on every level, as detectors have them."""

    image_size = (3, 128, 128)

    def __init__(self) -> None:
        super().__init__()
        self.backbone = torchvision.models.resnet18(weights=None)
        self.fpn = torchvision.ops.FeaturePyramidNetwork([64, 128, 256, 512], 64)
        self.boxes = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.GroupNorm(8, 64), nn.SiLU(), nn.Conv2d(64, 4, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        body = self.backbone
        x = body.maxpool(body.relu(body.bn1(body.conv1(x))))
        maps = {}
        for name in ("layer1", "layer2", "layer3", "layer4"):
            x = maps[name] = getattr(body, name)(x)
        return tuple(self.boxes(level) for level in self.fpn(maps).values())


class Embedding(nn.Module):
    """A convolutional encoder whose output is a vector of length 1."""

    image_size = (3, 64, 64)

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(block(3, 16, 2), block(16, 32, 2), block(32, 64, 2))
        self.project = nn.Linear(64, 32)

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.project(self.encoder(x).mean((2, 3))), dim=1)


class OutputOnly(nn.Module):
    """A segmentation network of torchvision with its main output instead of a dictionary."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)["out"]


class FcnResNet18(nn.Module):
    """A fully convolutional network with dilations and bilinear upsampling to the size of the image."""

    image_size = (3, 112, 112)

    def __init__(self) -> None:
        super().__init__()
        body = torchvision.models.resnet18(weights=None)
        self.backbone = nn.Sequential(*list(body.children())[:-2])
        self.head = nn.Sequential(nn.Conv2d(512, 64, 3, padding=2, dilation=2), nn.ReLU(), nn.Conv2d(64, 21, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.head(self.backbone(x)), size=x.shape[2:], mode="bilinear", align_corners=False)


def build(name: str) -> nn.Module:
    return {
        "alexnet_lrn": AlexNet,
        "vgg11_bn": Vgg,
        "vit": ViT,
        "u_net": UNet,
        "u_net_upsample": lambda: UNet(transposed=False),
        "autoencoder": Autoencoder,
        "dcgan_decoder": DcganDecoder,
        "pixel_shuffle": PixelShuffle,
        "feature_pyramid": FeaturePyramid,
        "embedding": Embedding,
        "fcn_resnet18": FcnResNet18,
    }[name]()
