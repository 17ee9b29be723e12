from hypothesis import HealthCheck, settings

# The same examples every time: what explores is `make fuzz`.
settings.register_profile(
    "opcod",
    max_examples=60,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("opcod")
