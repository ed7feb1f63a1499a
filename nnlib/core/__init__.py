"""What everything else stands on: errors, events, seeds, the layout of a model's vector, facts of the machine."""
