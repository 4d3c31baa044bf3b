"""What the pruning passes share: schedules, scores, masks, the layer that holds one."""
