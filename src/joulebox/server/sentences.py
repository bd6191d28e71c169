"""Finished English sentences that come from below (the line, verdicts, placement), with room for what changes.

The API speaks English and receipts are kept as they were made; a page in another language finds the sentence here and
fills its translation. One that is not here is shown in English.
"""

from typing import Final

from joulebox.accounting.validity import RULES
from joulebox.server.report import BOUNDARY, UNIT
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
    marked("More than {count} requests a minute: try again in {wait} s."),
    marked("More than {count} sign-ins a minute: try again in {wait} s."),
    marked("There is no key: paste the whole of it, from jb_ to its end."),
    marked("This key is not known, has expired or was revoked: use another."),
    marked("This key is for nodes and opens no page: use one for people."),
    marked("This needs a token with the scope {scope}, sent as Authorization: Bearer. Make one with {how}."),
    marked("This token does not have the scope {scope}: make one with {how}."),
    marked("{node} is {state}: stop it first, so that it does not come back."),
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
REPORT: Final = (
    BOUNDARY,
    UNIT,
    marked("{count} answers: their energy is unknown and not in the sum."),
    marked("{count} attempts left no evidence: what they drew is unknown and not in the sum."),
    marked("{node}: no meter covers {scopes}."),
    marked("The server ran on {nodes}: its electricity is in that node's figures."),
    marked("The server's machine: its idle power and its making are not known here and not in the sum."),
    marked("The server's own electricity: its processor time was not noted in this period."),
    marked("The network, and the devices people ask from, are not in the sum."),
    marked("{node}: what it drew in {unknown} of its {service} in service is unknown, not zero."),
    marked(
        "{node}: what it drew in {unknown} of its {service} in service is unknown, not zero. Waiting as it last did it "
        "would have emitted {grams} g more (modelled)."
    ),
    marked("grid {zone}, {kind}, {factor}, mean by energy"),
    marked("making {node}, over EL = {years} years"),
    marked("energy of the building per energy of the machine"),
    marked("share of the machine"),
    marked("power of an idle thread"),
    marked("power a busy thread adds"),
    marked("a node runs one prompt at a time"),
    marked("mean of {count} processor generations, Cloud Carbon Footprint"),
    marked("not metered: taken as 1.0"),
    marked("the operator's own"),
    marked("named with each part on the receipts"),
    marked("terms of the operator's plan"),
    marked("CC BY 4.0 unless its answer says otherwise"),
    marked("measured"),
    marked("modelled"),
    marked("sourced"),
    marked("simulated"),
    marked("estimated"),
    marked("forecast"),
    marked("yearly"),
    marked("static"),
)
ADVICE: Final = (
    marked("No model was measured here: run a campaign first."),
    marked("No model surely stays below {most} J an answer: {model} takes least, {energy} an answer."),
    marked("Cannot tell yet: {model} was right in {share}; about {count} more prompts would settle it."),
    marked("Cannot tell yet: the best, {model}, was right in {share}."),
    marked("No model is that good: the best, {model}, was right in {share}."),
    marked("{told}: the only one measured."),
    marked("{told}: the cheapest that is surely good enough."),
    marked("{told}: the cheapest that is surely good enough. Cheaper, but not surely good enough: {cheaper}."),
    marked(
        "{told}: the cheapest that is surely good enough. {model} is cheaper and was right in {share}: more prompts "
        "would tell."
    ),
    marked(
        "{told}: the cheapest that is surely good enough. Cheaper, but not surely good enough: {cheaper}. {model} is "
        "cheaper and was right in {share}: more prompts would tell."
    ),
    marked("{model} was right in {share}, at least {least} for 95 % certain, and takes {energy} an answer"),
    marked("{model} was right in {share}, and takes {energy} an answer"),
    marked("{right} of {count} prompts ({low} to {high})"),
    marked("{energy} J ({low} to {high})"),
)
"""Parts of sentences that stand in others are found too."""
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
    *REPORT,
    *ADVICE,
    *(f"{rule.sentence} {rule.remedy}" for rule in RULES.values()),
)
