"""Finished English sentences that come from below (the line, verdicts, placement), with room for what changes.

The API speaks English and receipts are kept as they were made; a page in another language finds the sentence here and
fills its translation. One that is not here is shown in English.
"""

from typing import Final

from joulebox.accounting.validity import RULES
from joulebox.wording import marked

LINE: Final = (
    marked("next in line"),
    marked("1 prompt is before yours"),
    marked("{count} prompts are before yours"),
    marked("more than {count} prompts are before yours"),
    marked("no node is connected"),
    marked("no node is connected: start one with `joulebox node`"),
    marked("the prompt asked for this node"),
    marked("the only node that may take it"),
    marked("waiting for {node}, which takes no prompts for now: {why}"),
    marked("no node has {model} any more: add it with `joulebox models add`"),
    marked("{node} was suspended and is woken for it"),
    marked("{node} was suspended and is woken for it, which takes about {time}"),
    marked("waiting for {node}, which was suspended and did not wake: it is tried again every 10 minutes"),
)
REFUSALS: Final = (
    marked("There is no receipt {id}."),
    marked("There is no prompt {id}."),
    marked("There is no comparison {id}."),
    marked("The prompt is empty: write something for the model to answer."),
    marked("The prompt has {count} characters; the model's context of {tokens} tokens cannot hold that. Shorten it."),
    marked("max_tokens {count} does not fit the model's context of {tokens} tokens: ask for fewer."),
    marked(
        "An energy budget needs readings while the answer is written, and a quiet prompt sends none: leave out "
        "max_energy_j, or ask with mode live."
    ),
    marked(
        "Without quick meters on {nodes} no energy budget can be kept there: choose another node with placement "
        "node:NAME, or leave out max_energy_j."
    ),
    marked("{field} must be a number; {text} is none."),
    marked("This was sent by another site. Open the page itself and ask there."),
    marked("This prompt belongs to somebody else: only who asked it, or an administrator, may do this."),
    marked("No connected node has all of these models: choose others."),
    marked("Choose {least} to {most} models to compare."),
    marked("The deadline {deadline} is over: it is {now} now."),
    marked("More than {count} asks a minute: try again in {wait} s."),
    marked("The message is empty: write what you want to say."),
    marked("A message has at most {count} characters, an address {length}: shorten it."),
)
STATES: Final = (
    marked("idle"),
    marked("busy"),
    marked("draining"),
    marked("away"),
    marked("unloaded"),
    marked("suspended"),
    marked("waking"),
    marked("waits for prompts"),
    marked("idle for {time}, so it has no model in memory"),
    marked("idle for {time}, so it sleeps until it is needed"),
    marked("woken for a prompt that only it can take"),
    marked("woken for a prompt that only it can take, which takes about {time}"),
    marked("it was suspended, and did not wake within {time}: look after it"),
    marked("its connection is gone"),
    marked("silent in the middle of a prompt"),
    marked("works on a prompt"),
    marked("takes up a prompt"),
    marked("waits for the machine to come to rest"),
    marked("warms up"),
    marked("loads a model"),
    marked("answers a prompt"),
    marked("listens to the machine after the answer"),
    marked("warms up: {sensor} is at {now} °C and begins at {target} °C"),
    marked("cools down: {sensor} is at {now} °C and begins at {target} °C"),
    marked("cools down: {sensor} is at {now} °C and begins at {target} °C, in about {time} s"),
    marked("control prompt: {doing}"),
    marked("{why}; finishes its prompt"),
)
KINDS: Final = (marked("average"), marked("marginal"), marked("lifecycle"), marked("direct"))
SOURCES: Final = (
    marked("gain of the counters, found at the wall"),
    marked("gain of the {scope} meter"),
    marked("offset of the {scope} meter"),
    marked("power model: idle machine"),
    marked("power model: busy cores"),
    marked("resolution"),
    marked("tick"),
    marked("lost ticks"),
    marked("guards"),
    marked("stamps"),
    marked("snapshots"),
    marked("idle noise"),
    marked("idle baseline"),
)
CONTROL: Final = (
    marked("Control prompt: has not run yet."),
    marked("Control prompt: {runs} of the {all} runs that its reference needs."),
    marked("Drifted: its control prompt takes energy {off} % above the reference of {since}."),
    marked("Drifted: its control prompt takes energy {off} % below the reference of {since}."),
    marked("Control prompt: steady since {since}, now {off} % above its reference."),
    marked("Control prompt: steady since {since}, now {off} % below its reference."),
)
ELSEWHERE: Final = (
    marked("No known grid is greener than {place}: moving would save nothing."),
    marked("In {place} it would have emitted {saved} CO2e less, {share} of {all}: making the machine does not move."),
    marked("At no known hour in {place} would it have been greener."),
    marked("In {place}, {hours}: {saved} less, {share}."),
    marked("Greenest of all known places and hours: {place}, {hours}."),
    marked("Places are compared by means of the year."),
    marked("Places are compared by means of the year; hours are not known, so no hour can be named."),
    marked("Places are compared for the present hour, as far as it is known ({count} grids)."),
    marked("Its electricity in {count} grids, each a line: {low} to {high} CO2e, left is greener."),
    marked("Its electricity in {place}, {hours}: {low} to {high} CO2e."),
)
SENTENCES: Final = (
    *LINE,
    *REFUSALS,
    *STATES,
    *KINDS,
    *SOURCES,
    *CONTROL,
    *ELSEWHERE,
    *(f"{rule.sentence} {rule.remedy}" for rule in RULES.values()),
)
