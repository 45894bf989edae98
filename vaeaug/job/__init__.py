"""The whole job: read, plan, train, diagnose, draw, screen, write; search and evaluate; publish."""
