"""The networks that the studies name."""

BACKBONES = (
    "vgg16",
    "vgg19",
    "densenet121",
    "densenet169",
    "resnet18",
    "resnet50",
    "resnet10t",
    "efficientnet_b0",
    "efficientnet_b1",
    "efficientnet_b2",
    "efficientnet_b3",
    "efficientnet_b4",
    "mobilenetv2_100",
)
