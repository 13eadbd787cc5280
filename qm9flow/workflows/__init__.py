"""What a command does from start to end; calls the rooms below, is called by none of them."""
