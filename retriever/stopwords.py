"""Function words of the languages whose documents Beleg is built for.

Lists on the package index are made for topic models and drop words that people search for (`computer`, `date`, `bill`), so
these hold articles, pronouns, prepositions, conjunctions, auxiliaries and question words only.
"""

from __future__ import annotations

__all__ = ["STOP_WORDS"]

_GERMAN = """
ab aber alle allem allen aller alles als also am an ander andere anderem anderen anderer anderes auch auf aus bei beim bin bis
bist da dabei dadurch dafür dagegen daher damit dann daran darauf daraus darf darin darum darüber das dass dasselbe davon dazu
dein deine deinem deinen deiner deines dem demselben den denen denn denselben der deren derer derselbe derselben des deshalb
desselben dessen dich die dies diese dieselbe dieselben diesem diesen dieser dieses dir doch dort du durch dürfen ein eine
einem einen einer eines er es etwa etwas euch euer eure eurem euren eurer eures für gab gegen gibt habe haben hat hatte hatten
hier hin hinter ich ihm ihn ihnen ihr ihre ihrem ihren ihrer ihres im in indem ins ist ja je jede jedem jeden jeder jedes jene
jenem jenen jener jenes jetzt kann kein keine keinem keinen keiner keines können könnte man manche manchem manchen mancher
manches mein meine meinem meinen meiner meines mich mir mit muss musste müssen nach nachdem nein nicht nichts noch nun nur ob
oder ohne sehr sein seine seinem seinen seiner seines seit selbst sich sie sind so solche solchem solchen solcher solches soll
sollen sollte sondern sonst sowie um und uns unser unsere unserem unseren unserer unseres unter vom von vor wann war waren
warum was weil welche welchem welchen welcher welches wenn wer werde werden wem wen weshalb wessen wie wieso wieviel wird wo
wobei wodurch wofür woher wohin womit woran worauf woraus worin worüber wovon wozu wurde wurden während würde würden zu zum zur
zwar zwischen über
"""

_ENGLISH = """
a about above after again against all also am among an and any are aren't as at be because been before being below between
both but by can can't cannot could couldn't did didn't do does doesn't doing don't during each few for from had hadn't has
hasn't have haven't having he he's her here hers herself him himself his how i i'm i've if in into is isn't it it's its itself
let's many may me might more most much must my myself no nor not of off on once only or other our ours ourselves out over own
same shall she she's should shouldn't so some such than that that's the their theirs them themselves then there there's these
they they're they've this those through to too under until up upon us very was wasn't we we're we've were weren't what what's
when where which while who who's whom whose why will with won't would wouldn't you you're you've your yours yourself
yourselves
"""

STOP_WORDS = {"de": frozenset(_GERMAN.split()), "en": frozenset(_ENGLISH.split())}
"""ISO 639-1 code to case-folded function words. Other languages have none: their frequent words rank low by BM25's IDF."""
