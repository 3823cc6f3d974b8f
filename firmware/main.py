"""Starts the application that this board was provisioned for."""

from kerb_node.relight import relight

relight()  # before the application is even loaded: a lamp stays dark for as long as that takes

from kerb_node import app  # noqa: E402

app.run()
