"""The Faust agents: each wires topics to the machinery in `streams`, and decides nothing itself."""
