"""Starts the application that this board was provisioned for."""

from kerb_node import app

app.run()
