"""What known answers would have saved on recorded and on made-up traffic; `scripts/replay_answers.py` prints it."""
