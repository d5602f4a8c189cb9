from hypothesis import settings

# Shared machines pause for longer than the default deadline of an example.
settings.register_profile("tidegate", deadline=None)
settings.load_profile("tidegate")
