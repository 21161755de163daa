"""Runs of many pictures: files of prompts -> requests -> a plan -> a journal of what is made."""
