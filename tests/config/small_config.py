"""A small configuration with everything that can be nested, for tests to change."""


def small() -> dict:
    """A configuration with everything that can be nested."""
    return {
        "settings": {},
        "models": {
            "m": {"id": "org/m", "sae": {"release": "r", "id": "x.{layer}"}, "settings": {}},
            "idle": {"id": "org/i", "sae": {"path": "there/{layer}"}, "settings": {}},
        },
        "tasks": {
            "t": {
                "dataset": "d.csv",
                "text": "text",
                "label": "label",
                "concept": "c.yaml",
                "classifier": {"model": "org/c", "label": "POSITIVE"},
                "settings": {},
            }
        },
        "experiments": {"e": {"model": "m", "task": "t", "settings": {}}},
        "demo_world": {},
    }


def at(raw: dict, path: tuple[str, ...]) -> dict:
    for key in path:
        raw = raw[key]
    return raw
