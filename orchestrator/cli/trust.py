"""`rayfold trust`."""

from orchestrator.cli.common import RunFolder, say


def trust(run: RunFolder) -> None:
    # Slow to import, and of no use to whoever asks for help.
    from orchestrator.results.run import load_run
    from trainables.models.known_code import builders, remember
    from trainables.models.user_code import folder_that_trained, watched_files

    opened = load_run(run)
    specs = builders(entry.spec for entry in opened.entries)
    for spec in specs:
        model, folder = spec.candidate.model, folder_that_trained(opened.layout, spec)
        remember(spec)
        say(f"trust   {model}, which may be imported from now on:")
        for path in watched_files(model, folder).values():
            say(f"        {path}")
    if not specs:
        say("trust   every model is rayfold's own: there is no code to be trusted")
