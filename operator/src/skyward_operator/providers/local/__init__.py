"""Machines that are processes of this computer, each with a home and a real SSH server of its own."""
