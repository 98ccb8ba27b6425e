"""Where notifications go: one module a kind of channel, all with the shape of :mod:`evaluators.alerts.channels.channel`."""
