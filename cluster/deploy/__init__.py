"""What operators deploy: image, KubeRay manifests, systemd units, and the programs these call."""
