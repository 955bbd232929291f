"""Simulated recordings with exact joint angles, from which every error of the pipeline is measured.

The data flows through the files in this order: `subject` scales an OpenSim model to a random person,
`motion` gives its joint angles over time (`movements` are built in), `landmarks` says where keypoints
and joint centres then are, `rig` places cameras, `occlusion` says which keypoints the body hides, and
`detector` adds the errors of image detectors. `rendering` draws the body into images; `scene` joins
them.

`population` draws endless examples for training in torch, by the same rules: `crowd` has the people,
`performances` and `random_motion` how they move, `rigs` the cameras, `capsules` what the body hides, and
`detections` what the detectors see.
"""
