#!/usr/bin/env python3
"""Draws what a command shows on a terminal, as SVG on standard output.

usage: scripts/terminal-svg.py COLUMNS COMMAND [ARGUMENT...] > docs/run.svg

The command runs on a pseudo-terminal with so many columns. Drawn is what the screen and its scrollback hold at the end;
of the control sequences only those are known that relapse uses.
"""
import fcntl
import html
import os
import pty
import re
import struct
import sys
import termios

WIDTH, LINE, LEFT, TOP = 7.22, 17, 20, 28
COLORS = {"30": "#6e7681", "31": "#ff7b72", "32": "#7ee787", "33": "#e3b341", "34": "#79c0ff", "35": "#d2a8ff", "36": "#76e3ea"}
PLAIN = "#c9d1d9"


def output_of(columns, command):
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update(TERM="xterm-256color")
        os.environ.pop("NO_COLOR", None)
        os.execvp(command[0], command)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 60, columns, 0, 0))
    data = b""
    try:
        while chunk := os.read(terminal, 65536):
            data += chunk
    except OSError:
        pass
    os.waitpid(child, 0)
    return data.decode(errors="replace")


def screen(text, columns):
    """Lines of (character, style); a style is (color, bold, dim)."""
    lines, row, column, style = [[]], 0, 0, (PLAIN, False, False)
    for control, parameters, final, character in re.findall(r"(\x1b\[([0-9;?]*)([A-Za-z]))|([^\x1b]|\x1b)", text):
        if control:
            count = int(parameters) if parameters.isdigit() else 1
            if final == "A":
                row = max(0, row - count)
            elif final == "B":
                row += count
            elif final == "K":
                lines[row] = [] if parameters == "2" else lines[row][:column]
            elif final == "J":
                del lines[row + 1 :]
                lines[row] = lines[row][:column]
            elif final == "m":
                style = sgr(style, parameters)
        elif character == "\r":
            column = 0
        elif character == "\n":
            row, column = row + 1, 0
        elif character.isprintable():
            if column == columns:
                row, column = row + 1, 0
            while row >= len(lines):
                lines.append([])
            line = lines[row]
            line.extend([(" ", (PLAIN, False, False))] * (column - len(line) + 1))
            line[column] = (character, style)
            column += 1
        while row >= len(lines):
            lines.append([])
    while lines and not any(character.strip() for character, _ in lines[-1]):
        lines.pop()
    return lines


def sgr(style, parameters):
    color, bold, dim = style
    codes = (parameters or "0").split(";")
    while codes:
        code = codes.pop(0)
        if code in ("0", ""):
            color, bold, dim = PLAIN, False, False
        elif code == "1":
            bold = True
        elif code == "2":
            dim = True
        elif code == "22":
            bold = dim = False
        elif code == "39":
            color = PLAIN
        elif code == "38" and codes[:1] == ["5"]:
            color = COLORS.get(str(30 + int(codes[1]) % 8), PLAIN)
            codes = codes[2:]
        elif code in COLORS or (len(code) == 2 and code[0] == "9"):
            color = COLORS.get("3" + code[1], PLAIN)
    return color, bold, dim


def draw(columns, command, lines):
    height = TOP + LINE * (len(lines) + 1)
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT * 2 + columns * WIDTH:.0f}" height="{height}"'
        ' font-family="ui-monospace,Menlo,Consolas,DejaVu Sans Mono,monospace" font-size="12">'
        '<rect width="100%" height="100%" rx="8" fill="#0d1117"/>'
    )
    prompt = [(character, (PLAIN, False, False)) for character in "$ " + " ".join(command)]
    for number, line in enumerate([prompt, *lines]):
        start = 0
        while start < len(line):
            end = start
            while end < len(line) and line[end][1] == line[start][1]:
                end += 1
            text = "".join(character for character, _ in line[start:end])
            shown, (color, bold, dim) = text.strip(), line[start][1]
            if shown:
                x = LEFT + (start + len(text) - len(text.lstrip())) * WIDTH
                looks = ' font-weight="bold"' * bold + ' opacity="0.65"' * dim
                yield (
                    f'<text x="{x:.1f}" y="{TOP + LINE * number}" fill="{color}" textLength="{len(shown) * WIDTH:.1f}"'
                    f' xml:space="preserve"{looks}>{html.escape(shown)}</text>'
                )
            start = end
    yield "</svg>"


def main():
    columns, command = int(sys.argv[1]), sys.argv[2:]
    lines = screen(output_of(columns, command), columns)
    command[0] = os.path.basename(command[0])
    print("\n".join(draw(columns, command, lines)))


main()
