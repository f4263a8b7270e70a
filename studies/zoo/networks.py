"""The networks of the zoo: small members of every family in torchvision and timm, and a few that are written here.

An entry is `SOURCE/NAME`, optionally followed by a space and keyword arguments of its constructor as JSON.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import own
import timm
import torchvision
from torch import nn

CONVOLUTIONAL, TRANSFORMER, DENSE = "convolutional", "transformer or hybrid", "dense prediction"

LISTED = {
    CONVOLUTIONAL: """
        torchvision/resnet18
        torchvision/resnet50
        torchvision/resnext50_32x4d
        torchvision/squeezenet1_1
        torchvision/mobilenet_v2
        torchvision/mobilenet_v3_small
        torchvision/mobilenet_v3_large
        torchvision/shufflenet_v2_x1_0
        torchvision/mnasnet0_5
        torchvision/googlenet {"init_weights": false}
        torchvision/inception_v3 {"init_weights": false}
        torchvision/densenet121
        torchvision/efficientnet_b0
        torchvision/efficientnet_v2_s
        torchvision/regnet_x_400mf
        torchvision/regnet_y_400mf
        torchvision/convnext_tiny
        torchvision/alexnet
        own/alexnet_lrn
        own/vgg11_bn
        timm/resnet10t
        timm/resnet26
        timm/resnet33ts
        timm/resnet50_gn
        timm/resnetblur18
        timm/resnetv2_18
        timm/resnetv2_50x1_bit
        timm/resnetv2_50d_frn
        timm/seresnet18
        timm/legacy_seresnext26_32x4d
        timm/skresnet18
        timm/ecaresnet26t
        timm/gcresnext26ts
        timm/bat_resnext26ts
        timm/resnest14d
        timm/res2net50_14w_8s
        timm/selecsls42b
        timm/dla34
        timm/dla46x_c
        timm/dla60_res2net
        timm/dpn68
        timm/densenetblur121d
        timm/rdnet_tiny
        timm/hrnet_w18_small
        timm/inception_v4
        timm/inception_resnet_v2
        timm/legacy_xception
        timm/xception41
        timm/pnasnet5large {"num_classes": 10}
        timm/mnasnet_100
        timm/semnasnet_075
        timm/spnasnet_100
        timm/fbnetc_100
        timm/fbnetv3_b
        timm/mixnet_s
        timm/lcnet_050
        timm/lcnetv2_small
        timm/tinynet_e
        timm/mobilenetv1_100
        timm/mobilenetv2_050
        timm/mobilenetv3_small_050
        timm/mobilenet_edgetpu_100
        timm/mobilenetv4_conv_small
        timm/mobilenetv4_conv_aa_medium
        timm/mobileone_s0
        timm/efficientnet_b0
        timm/efficientnet_lite0
        timm/efficientnet_es
        timm/efficientnet_b0_gn
        timm/efficientnet_b0_g16_evos
        timm/efficientnet_blur_b0
        timm/efficientnet_cc_b0_4e
        timm/tf_efficientnet_b0
        timm/tf_efficientnetv2_b0
        timm/efficientnetv2_rw_t
        timm/gc_efficientnetv2_rw_t
        timm/rexnet_100
        timm/rexnetr_100
        timm/ghostnet_050
        timm/ghostnetv2_100
        timm/ghostnetv3_050
        timm/repghostnet_050
        timm/hardcorenas_a
        timm/hgnet_tiny
        timm/hgnetv2_b0
        timm/regnetx_002
        timm/regnety_002
        timm/regnetz_005
        timm/regnetv_040
        timm/nf_regnet_b0
        timm/nf_resnet26
        timm/nf_ecaresnet26
        timm/nfnet_l0
        timm/eca_nfnet_l0
        timm/vovnet39a
        timm/ese_vovnet19b_slim_dw
        timm/cspresnet50
        timm/cspdarknet53
        timm/cspnext_tiny
        timm/cs3darknet_focus_s
        timm/repvgg_a0
        timm/repvit_m0_9
        timm/gernet_s
        timm/convnext_atto
        timm/convnext_atto_ols
        timm/convnext_atto_rms
        timm/convnext_zepto_rms_ols
        timm/convnextv2_atto
        timm/convmixer_768_32
        timm/tresnet_m
        timm/inception_next_atto
        timm/fasternet_t0
        timm/starnet_s1
        timm/mambaout_femto
        timm/shvit_s1
        timm/test_resnet
        timm/test_efficientnet
        timm/test_efficientnet_gn
        timm/test_efficientnet_ln
        timm/test_efficientnet_evos
        timm/test_byobnet
        timm/test_convnext
        timm/test_convnext2
        timm/test_convnext3
        timm/test_mambaout
        timm/test_nfnet
    """,
    TRANSFORMER: """
        torchvision/swin_t
        torchvision/swin_v2_t
        torchvision/maxvit_t
        own/vit
        timm/vit_tiny_patch16_224
        timm/vit_small_patch16_224
        timm/vit_small_patch32_224
        timm/vit_wee_patch16_reg1_gap_256
        timm/vit_tiny_r_s16_p8_224
        timm/vit_small_patch14_dinov2
        timm/vit_small_patch16_dinov3
        timm/vit_relpos_small_patch16_224
        timm/vit_srelpos_small_patch16_224
        timm/vit_small_patch16_rope_mixed_ape_224
        timm/vit_xsmall_patch16_clip_224
        timm/vit_base_patch32_clip_quickgelu_224 {"depth": 4, "embed_dim": 384, "num_heads": 6}
        timm/vit_base_patch16_siglip_224 {"depth": 4, "embed_dim": 384, "num_heads": 6}
        timm/vit_base_patch16_siglip_gap_224 {"depth": 4, "embed_dim": 384, "num_heads": 6}
        timm/vit_pe_core_tiny_patch16_384
        timm/vit_base_mci_224 {"depth": 2}
        timm/naflexvit_base_patch16_gap {"depth": 4, "embed_dim": 384, "num_heads": 6}
        timm/aimv2_1b_patch14_224 {"depth": 3, "embed_dim": 384, "num_heads": 6}
        timm/samvit_base_patch16_224 {"depth": 4, "embed_dim": 384, "num_heads": 6}
        timm/flexivit_small
        timm/deit_tiny_patch16_224
        timm/deit_tiny_distilled_patch16_224
        timm/deit3_small_patch16_224
        timm/beit_base_patch16_224 {"depth": 4, "embed_dim": 384, "num_heads": 6}
        timm/beitv2_base_patch16_224 {"depth": 4, "embed_dim": 384, "num_heads": 6}
        timm/beit3_base_patch16_224 {"depth": 4, "embed_dim": 384, "num_heads": 6}
        timm/eva_large_patch14_196 {"depth": 3, "embed_dim": 384, "num_heads": 6}
        timm/eva02_tiny_patch14_224
        timm/swin_tiny_patch4_window7_224
        timm/swin_s3_tiny_224
        timm/swinv2_tiny_window8_256
        timm/swinv2_cr_tiny_224
        timm/maxvit_pico_rw_256
        timm/maxvit_rmlp_pico_rw_256
        timm/maxvit_tiny_pm_256
        timm/coatnet_pico_rw_224
        timm/coatnet_nano_cc_224
        timm/coatnet_0_224
        timm/coatnext_nano_rw_224
        timm/cait_xxs24_224
        timm/mobilevit_xxs
        timm/mobilevitv2_050
        timm/mobilenetv4_hybrid_medium_075
        timm/efficientformer_l1
        timm/efficientformerv2_s0
        timm/efficientvit_b0
        timm/efficientvit_m0
        timm/efficientvit_l1 {"widths": [16, 32, 64, 128, 256], "head_widths": [384, 512]}
        timm/edgenext_xx_small
        timm/poolformer_s12
        timm/poolformerv2_s12
        timm/convformer_s18
        timm/xcit_nano_12_p16_224
        timm/pit_ti_224
        timm/pit_xs_distilled_224
        timm/levit_128s
        timm/levit_conv_128s
        timm/crossvit_9_240
        timm/crossvit_tiny_240
        timm/twins_svt_small
        timm/twins_pcpvt_small
        timm/pvt_v2_b0
        timm/pvt_v2_b2_li
        timm/hiera_tiny_224
        timm/mvitv2_tiny
        timm/fastvit_t8
        timm/fastvit_sa12
        timm/coat_lite_tiny
        timm/coat_tiny
        timm/convit_tiny
        timm/tnt_s_patch16_224
        timm/volo_d1_224
        timm/visformer_tiny
        timm/davit_tiny
        timm/focalnet_tiny_srf
        timm/gcvit_xxtiny
        timm/tiny_vit_5m_224
        timm/swiftformer_xs
        timm/vitamin_small_224
        timm/sequencer2d_s
        timm/botnet26t_256
        timm/halonet26t
        timm/lambda_resnet26t
        timm/eca_botnext26ts_256
        timm/resnet50_clip
        timm/resnet50_clip_gap
        timm/mixer_s32_224
        timm/gmixer_12_224
        timm/gmlp_ti16_224
        timm/resmlp_12_224
        timm/efficientvim_m1
        timm/iformer_t
        timm/csatv2
        timm/lowformer_b0
        timm/cpubone_nano
        timm/test_vit
        timm/test_vit2
        timm/test_vit3
        timm/test_vit4
        timm/test_vit_relpos
        timm/test_maxvit
        timm/test_coatnet
    """,
    DENSE: """
        torchvision/lraspp_mobilenet_v3_large
        torchvision/deeplabv3_mobilenet_v3_large
        torchvision/fcn_resnet50
        own/fcn_resnet18
        own/u_net
        own/u_net_upsample
        own/dcgan_decoder
        own/autoencoder
        own/pixel_shuffle
        own/feature_pyramid
        own/embedding
    """,
}


@dataclass(frozen=True)
class Entry:
    """A network of the list."""

    name: str
    family: str
    arguments: str = "{}"

    @property
    def folder(self) -> str:
        return self.name.replace("/", "-")

    def build(self) -> nn.Module:
        """The network in evaluation mode, with its own initial weights."""
        source, name = self.name.split("/")
        arguments: dict[str, Any] = json.loads(self.arguments)
        return BUILDERS[source](name, **arguments).eval()

    def size(self, model: nn.Module) -> tuple[int, int, int]:
        """`[C,H,W]` of the images that the network is meant for."""
        if (configuration := getattr(model, "pretrained_cfg", None)) is not None:
            side = json.loads(self.arguments).get("img_size")
            return (3, side, side) if side else tuple(configuration["input_size"])
        return getattr(model, "image_size", None) if self.name.startswith("own/") else TORCHVISION.get(self.name, (3, 224, 224))


TORCHVISION = {"torchvision/inception_v3": (3, 299, 299), "torchvision/swin_v2_t": (3, 256, 256)}


def of_torchvision(name: str, **arguments: Any) -> nn.Module:
    if name.startswith(("lraspp", "deeplab", "fcn")):
        arguments |= {"weights": None, "weights_backbone": None}
        return own.OutputOnly(torchvision.models.get_model(name, **arguments))
    return torchvision.models.get_model(name, weights=None, **arguments)


BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "timm": timm.create_model,
    "torchvision": of_torchvision,
    "own": own.build,
}


def entries() -> list[Entry]:
    """All networks, in the order of the list."""
    found = []
    for family, text in LISTED.items():
        for line in text.strip().splitlines():
            name, _, arguments = line.strip().partition(" ")
            found.append(Entry(name, family, arguments or "{}"))
    return found


def find(name: str) -> Entry:
    return next(entry for entry in entries() if entry.name == name)
