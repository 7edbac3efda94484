"Semi-supervised training past wrong labels: items whose label is doubted train without it."
