"""Runs of many pictures: prompt files -> requests -> a plan -> a journal of finished pictures."""
