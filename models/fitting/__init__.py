"""One fit of a person's segment scales, points on the body and poses to all that was measured.

`evidence` is what was measured; `person` makes a model with keypoints on its bodies and says by which
parameters people differ; `rows` compares the model with the evidence; `subject` finds the parameters, by
samples of all trials, and how well they are determined; `motion` finds a trial's coordinates, then,
with a prior on their smoothness. All that is assumed is in `priors.toml`.
"""
