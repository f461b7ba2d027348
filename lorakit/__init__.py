"""lorakit: full fine-tuning and LoRA, small enough to read in an evening."""
