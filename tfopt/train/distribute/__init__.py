"""Where training runs: strategies, workers, and how a batch is shared out."""
