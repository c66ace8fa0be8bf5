"""What several test folders share: tiny checkpoints, specs, manifests, fakes. No torch."""
