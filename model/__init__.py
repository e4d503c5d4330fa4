"""One Transformer, of which model families are presets. Knows logical axes, never devices."""
