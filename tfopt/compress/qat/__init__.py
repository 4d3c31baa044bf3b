"""What quantization-aware training shares: what is rounded where, and observers."""
