"""Search algorithms behind Katib's suggestion interface; hosted by the embedded plane."""
