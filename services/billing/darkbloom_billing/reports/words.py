"""Words of pseudonyms: 256 of each kind, one byte chooses one. Their order makes the names."""

_ADJECTIVES = """
acid agile airy alert alpine ample ancient apt aqua arctic artful ashen astral autumn awake
azure basic beady bold bonny boreal breezy bright brisk bronze bubbly calm canny careful
casual cedar cheery chilly civic classy clean clear clever coastal cobalt comfy cool copper
cosmic cozy crafty creamy crimson crisp curious curly daily dainty dapper dawn dazzled deep
deft dense direct dizzy dotted downy dreamy dusky eager early earthy easy elated elfin ember
emerald epic equal even fabled fair famous fancy fast fiery fine firm fit fleet floral
fluffy foggy fond formal frank fresh frosty frugal full funny fuzzy gentle giant gilded glad
gleeful golden good gracious grand grassy green happy hardy hazel hazy hearty hidden hilly
honest humble icy indigo inner ivory jade jaunty jazzy jovial joyful keen kind kindly leafy
lean level light lilac limber local lofty loyal lucid lucky magic mellow merry mighty mild
minty modest mossy muted native neat noble northern novel nutty oaken opal open optic orange
outer owlish patient peachy pearly perky placid playful plucky plush polar polite prime
proud pure quaint quick quiet rare ready regal robust rosy royal rugged russet rustic sandy
sapphire savvy serene shady sharp shiny shy silken silver simple sleek slender smooth snowy
snug sober social solid sonic spicy spry starry steady still stoic stony sturdy subtle super
supple sure sweet swift tall tawny teal tender thrifty tidal timely topaz tranquil trim true
trusty urban vast velvet verdant vernal violet vital vivid warm wavy western wild willing
windy wintry wise wooden woolly worthy young zany zesty
"""
ADJECTIVES = tuple(_ADJECTIVES.split())

_ANIMALS = """
addax agouti alpaca anchovy ant anteater armadillo avocet baboon badger barbet barnacle
basilisk bass beagle bear bee beetle bilby bison bluebird boar bobolink bongo booby bream
buffalo bullfinch bumblebee burro bustard buzzard caiman canary capybara cardinal caribou
cassowary cat cattle centipede chamois cheetah chicken chinchilla cicada civet coati cobra
cod colobus condor cormorant cougar coyote crab crayfish cricket cuckoo curlew dhole dikdik
dipper dodo donkey dormouse dove dragonfly dugong dunlin earwig echidna egret eider elephant
elk emu falcon fennec finch firefly flamingo flicker fossa fox frog fulmar gar gaur gecko
gerbil gibbon giraffe goat godwit goose gopher goshawk grackle grouper grouse gull guppy
haddock hamster hare hawk hedgehog heron herring hoopoe hornbill hoverfly husky ibex ibis
impala jacana jackdaw jaguar jellyfish jerboa kangaroo kea kingfisher kinkajou kiwi koala
kodiak krill kudu lamprey langur lark lemming leopard limpet lion lizard lobster locust
lorikeet loris macaque macaw mallard manatee manta margay marmoset marmot martin mastiff
meerkat mink minnow mongoose monkey moth mouflon mule muskox narwhal newt nightjar numbat
ocelot octopus opossum orangutan oriole oryx ostrich otter ox oyster pangolin panther parrot
partridge peacock penguin perch pheasant pigeon pike pipit plover polecat porcupine porpoise
prawn puffin python quail quokka quoll raccoon rail raven ray reindeer rhea roadrunner robin
rooster salmon sandpiper seahorse seal shark sheep shrike shrimp skunk skylark snail snipe
spider squid starfish starling stoat stork swallow swan takin tamarin tapir tarpon tarsier
terrapin thrush toad tortoise trout tuna turtle urchin viper vole wallaby walrus warthog
wasp weevil whale whippet wigeon wolf wolverine woodcock woodpecker yak zebra zebu
"""
ANIMALS = tuple(_ANIMALS.split())
