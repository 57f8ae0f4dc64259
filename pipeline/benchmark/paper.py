"""What the paper of DeepSeek's visual primitives reports, beside the suites that ask for the same skill.

The figures are from its evaluation section: percent, images and prompts of its own or of public sets.
"""

from __future__ import annotations

MODELS = (
    "Gemini-3-Flash", "GPT-5.4", "Claude-Sonnet-4.6", "Gemma4-31B", "Qwen3-VL-235B-Think", "the paper's",
)  # fmt: skip
SENTENCE = """\
The paper's figures are for reading beside ours, not for comparing: they were measured on other test sets (its own,
which are not public, and sets of photographs), with other prompts."""
# suite -> the paper's benchmark -> a figure for each of MODELS
FIGURES: dict[str, dict[str, tuple[float, ...]]] = {
    "counting": {
        "DS_Finegrained_Counting": (79.1, 84.2, 82.6, 79.5, 87.2, 88.7),
        "CountQA (exact)": (66.1, 48.3, 34.8, 43.2, 42.7, 64.9),
        "Pixmo-Count": (88.2, 76.6, 68.7, 82.9, 77.2, 89.2),
    },
    "spatial": {
        "DS_Spatial_Reasoning": (93.2, 81.1, 97.2, 77.2, 96.8, 98.7),
        "MIHBench": (83.2, 83.5, 81.7, 82.2, 75.1, 85.3),
        "SpatialMQA": (67.0, 61.9, 58.2, 60.6, 54.5, 69.4),
        "EmbSpatial": (82.6, 80.9, 75.1, 82.1, 83.7, 83.7),
        "CV-Bench": (88.6, 87.5, 85.1, 87.5, 88.1, 88.4),
        "OmniSpatial": (59.6, 58.8, 53.2, 49.4, 55.3, 59.5),
    },
    "maze": {"DS_Maze_Navigation": (49.4, 50.6, 48.9, 49.8, 49.6, 66.9)},
    "path_tracing": {"DS_Path_Tracing": (41.4, 46.5, 30.6, 33.9, 24.5, 56.7)},
}
