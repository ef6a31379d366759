"""The commands of `tpv`, a file each; a package is a group of commands.

A module has a function `command`, whose docstring is the help; and may have `NAME`, what the command is called, and
`ORDER`, its place in the help.
"""
