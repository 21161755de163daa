"""What a run trains, on what and how: recipes, their reading and their checks."""
