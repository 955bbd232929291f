"""Simulated recordings with exact joint angles, from which every error of the pipeline is measured.

The data flows through the files in this order: `subject` scales an OpenSim model to a random person,
`motion` gives its joint angles over time (`movements` are built in), `landmarks` says where keypoints
and joint centres then are, `rig` places cameras, `occlusion` says which keypoints the body hides, and
`detector` adds the errors of image detectors. `rendering` draws the body into images; `scene` joins
them.
"""
