"""Where each gate stands among the four of a step."""

INPUT_GATE, FORGET_GATE, CANDIDATE, OUTPUT_GATE = range(4)
