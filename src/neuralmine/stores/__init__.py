"""What is kept on disk: findings and training runs."""
