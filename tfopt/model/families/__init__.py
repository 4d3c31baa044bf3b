"""Published architectures, a module each: config and tensors -> tfopt's encoder."""
