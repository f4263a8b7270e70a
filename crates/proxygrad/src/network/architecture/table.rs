//! The architectures known by name.

use super::{Architecture, ConvNext, DenseNet, EfficientNetLite, Family, ResNet, Vgg, Vit};

const LITE: [EfficientNetLite; 3] = [EfficientNetLite::Lite0, EfficientNetLite::Lite1, EfficientNetLite::Lite2];

const RESNET: [(&str, ResNet); 11] = [
    ("resnet18", ResNet::of([2, 2, 2, 2], false, 1, 64)),
    ("resnet34", ResNet::of([3, 4, 6, 3], false, 1, 64)),
    ("resnet50", ResNet::of([3, 4, 6, 3], true, 1, 64)),
    ("resnet101", ResNet::of([3, 4, 23, 3], true, 1, 64)),
    ("resnet152", ResNet::of([3, 8, 36, 3], true, 1, 64)),
    ("resnext50_32x4d", ResNet::of([3, 4, 6, 3], true, 32, 4)),
    ("resnext101_32x4d", ResNet::of([3, 4, 23, 3], true, 32, 4)),
    ("resnext101_32x8d", ResNet::of([3, 4, 23, 3], true, 32, 8)),
    ("resnext101_64x4d", ResNet::of([3, 4, 23, 3], true, 64, 4)),
    ("wide_resnet50_2", ResNet::of([3, 4, 6, 3], true, 1, 128)),
    ("wide_resnet101_2", ResNet::of([3, 4, 23, 3], true, 1, 128)),
];

const VGG: [(&str, Vgg); 8] = [
    ("vgg11", Vgg::of([1, 1, 2, 2, 2], false)),
    ("vgg11_bn", Vgg::of([1, 1, 2, 2, 2], true)),
    ("vgg13", Vgg::of([2, 2, 2, 2, 2], false)),
    ("vgg13_bn", Vgg::of([2, 2, 2, 2, 2], true)),
    ("vgg16", Vgg::of([2, 2, 3, 3, 3], false)),
    ("vgg16_bn", Vgg::of([2, 2, 3, 3, 3], true)),
    ("vgg19", Vgg::of([2, 2, 4, 4, 4], false)),
    ("vgg19_bn", Vgg::of([2, 2, 4, 4, 4], true)),
];

const DENSENET: [(&str, DenseNet); 4] = [
    ("densenet121", DenseNet { blocks: [6, 12, 24, 16], growth: 32, stem: 64 }),
    ("densenet161", DenseNet { blocks: [6, 12, 36, 24], growth: 48, stem: 96 }),
    ("densenet169", DenseNet { blocks: [6, 12, 32, 32], growth: 32, stem: 64 }),
    ("densenet201", DenseNet { blocks: [6, 12, 48, 32], growth: 32, stem: 64 }),
];

const CONVNEXT: [(&str, ConvNext); 4] = [
    ("convnext_tiny", ConvNext { blocks: [3, 3, 9, 3], channels: [96, 192, 384, 768] }),
    ("convnext_small", ConvNext { blocks: [3, 3, 27, 3], channels: [96, 192, 384, 768] }),
    ("convnext_base", ConvNext { blocks: [3, 3, 27, 3], channels: [128, 256, 512, 1024] }),
    ("convnext_large", ConvNext { blocks: [3, 3, 27, 3], channels: [192, 384, 768, 1536] }),
];

const VIT: [(&str, usize, Vit); 18] = [
    ("vit_tiny_patch16_224", 224, Vit::of(16, 192, 12, 3)),
    ("vit_tiny_patch16_384", 384, Vit::of(16, 192, 12, 3)),
    ("vit_small_patch16_224", 224, Vit::of(16, 384, 12, 6)),
    ("vit_small_patch16_384", 384, Vit::of(16, 384, 12, 6)),
    ("vit_small_patch32_224", 224, Vit::of(32, 384, 12, 6)),
    ("vit_base_patch16_224", 224, Vit::of(16, 768, 12, 12)),
    ("vit_base_patch16_384", 384, Vit::of(16, 768, 12, 12)),
    ("vit_base_patch32_224", 224, Vit::of(32, 768, 12, 12)),
    ("vit_large_patch16_224", 224, Vit::of(16, 1024, 24, 16)),
    ("vit_large_patch16_384", 384, Vit::of(16, 1024, 24, 16)),
    ("vit_large_patch32_224", 224, Vit::of(32, 1024, 24, 16)),
    ("vit_huge_patch14_224", 224, Vit::of(14, 1280, 32, 16)),
    ("vit_small_patch14_dinov2", 518, Vit::of(14, 384, 12, 6).dino(0)),
    ("vit_base_patch14_dinov2", 518, Vit::of(14, 768, 12, 12).dino(0)),
    ("vit_large_patch14_dinov2", 518, Vit::of(14, 1024, 24, 16).dino(0)),
    ("vit_small_patch14_reg4_dinov2", 518, Vit::of(14, 384, 12, 6).dino(4)),
    ("vit_base_patch14_reg4_dinov2", 518, Vit::of(14, 768, 12, 12).dino(4)),
    ("vit_large_patch14_reg4_dinov2", 518, Vit::of(14, 1024, 24, 16).dino(4)),
];

/// Other names of some of them.
const ALIASES: [(&str, &str); 16] = [
    ("deit_tiny_patch16_224", "vit_tiny_patch16_224"),
    ("deit_small_patch16_224", "vit_small_patch16_224"),
    ("deit_base_patch16_224", "vit_base_patch16_224"),
    ("deit_base_patch16_384", "vit_base_patch16_384"),
    ("dinov2_vits14", "vit_small_patch14_dinov2"),
    ("dinov2_vitb14", "vit_base_patch14_dinov2"),
    ("dinov2_vitl14", "vit_large_patch14_dinov2"),
    ("vit_b_16", "vit_base_patch16_224"),
    ("vit_b_32", "vit_base_patch32_224"),
    ("vit_l_16", "vit_large_patch16_224"),
    ("vit_l_32", "vit_large_patch32_224"),
    ("vit_h_14", "vit_huge_patch14_224"),
    ("tv_resnet34", "resnet34"),
    ("tv_resnet50", "resnet50"),
    ("tv_resnet101", "resnet101"),
    ("tv_resnet152", "resnet152"),
];

/// All architectures.
pub(super) fn all() -> impl Iterator<Item = Architecture> {
    let square = |name, side, family| Architecture { name, input: [3, side, side], family };
    let ordinary = move |(name, family)| square(name, 224, family);
    LITE.into_iter()
        .map(EfficientNetLite::architecture)
        .chain([Architecture::SQUEEZENET_1_1])
        .chain(RESNET.map(|(name, resnet)| (name, Family::ResNet(resnet))).map(ordinary))
        .chain(VGG.map(|(name, vgg)| (name, Family::Vgg(vgg))).map(ordinary))
        .chain(DENSENET.map(|(name, densenet)| (name, Family::DenseNet(densenet))).map(ordinary))
        .chain(CONVNEXT.map(|(name, convnext)| (name, Family::ConvNext(convnext))).map(ordinary))
        .chain(VIT.map(|(name, side, vit)| square(name, side, Family::Vit(vit))))
}

/// The architecture with this name.
pub(super) fn find(name: &str) -> Option<Architecture> {
    let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| name);
    all().find(|architecture| architecture.name == name)
}
